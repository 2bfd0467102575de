"""LoRA+: B learns faster than A (Hayou et al. 2024, arXiv:2402.12354).

    rate of A = learning_rate        rate of B = learning_rate_ratio * learning_rate

At one rate for both, A and B of a wide layer do not learn features at the same speed; the paper finds ratios of 2 to 16
good, the larger the more there is to learn. DoRA's magnitudes keep the rate of A: the paper's argument is about the two
factors of a product, and a magnitude is none of them. (PEFT's `create_loraplus_optimizer` gives them that of B.)
"""

from __future__ import annotations

from llama_exp.lora.enable import adapters


def rate_factors(backbone, learning_rate_ratio: float) -> dict[str, float]:
    """Path of each adapter's B -> what its learning rate is multiplied by."""
    return {adapter.lora_b.path: learning_rate_ratio for adapter in adapters(backbone).values()}
