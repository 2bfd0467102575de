"""What the training loop accepts."""

from __future__ import annotations

import enum

from llama_exp.limits import COUNT, TEXTS, Limits, allow_from, allow_null


class Remat(enum.Enum):
    """Which activations the backward pass computes again instead of keeping them."""

    none = "none"
    attention = "attention"  # the attention weights: every head's S x S numbers
    block = "block"  # each decoder block keeps only its input


LIMITS = Limits(
    "trainer",
    {
        "max_steps": COUNT,
        "batch_size": COUNT,
        "accumulation_steps": COUNT,
        "log_every_steps": COUNT,
        "validate_every_steps": COUNT,
        "validation_batches": allow_null(COUNT),
        "checkpoint_every_steps": COUNT,
        "keep_checkpoints": COUNT,
        "sample_prompts": TEXTS,
        "sample_tokens": COUNT,
        "sample_temperature": allow_from(0),
    },
)
