"""The model of a run: built, filled and adapted in one fixed order; and its size, computed without building it.

Importing this module imports no framework: the formulas serve the plan that is printed before Keras is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from llama_exp import lora as low_rank


def build(
    backbone_factory: Callable,
    *,
    policy: str,
    preset_dir: Path | None,
    lora: Mapping,
    remat: bool,
    seed: int,
):
    """A backbone, ready to train: built, then loaded, then given adapters.

    The order matters: adapters freeze what is there, so the weights must be loaded before; they are never part of a
    preset, so loading must not see them.

    Args:
        backbone_factory: called with `dtype=`, returns the `LlamaBackbone` of the config's `model` section.
        policy: the `precision` section's value.
        preset_dir: local preset folder to take the weights from; None: they stay random.
        lora: the `lora` section; `rank` 0 means no adapters.
        remat: recompute each block in the backward pass.
        seed: of the random weights and the adapters, and of dropout.

    Raises:
        InputError: the preset's weights do not fit the model.
        ValueError: an argument of the model or of `lora` is impossible.
    """
    import keras

    from llama_exp import precision

    keras.utils.set_random_seed(seed)
    backbone = backbone_factory(dtype=precision.policy(policy))
    if preset_dir is not None:
        from llama_exp.models import keras_hub_format

        keras_hub_format.load_weights(backbone, preset_dir)
    if lora["rank"] > 0:
        backbone.enable_lora(**lora)
    backbone.remat = remat
    return backbone


def linear_shapes(model: Mapping) -> dict[str, tuple[int, int]]:
    """Shape (inputs, outputs) of every linear layer by path, in order of use, for a `model` section."""
    hidden_dim, intermediate_dim = model["hidden_dim"], model["intermediate_dim"]
    key_value_dim = hidden_dim // model["num_query_heads"] * model["num_key_value_heads"]
    block = {
        "self_attention/query": (hidden_dim, hidden_dim),
        "self_attention/key": (hidden_dim, key_value_dim),
        "self_attention/value": (hidden_dim, key_value_dim),
        "self_attention/attention_output": (hidden_dim, hidden_dim),
        "feedforward_gate_dense": (hidden_dim, intermediate_dim),
        "feedforward_intermediate_dense": (hidden_dim, intermediate_dim),
        "feedforward_output_dense": (intermediate_dim, hidden_dim),
    }
    return {f"transformer_layer_{i}/{name}": shape for i in range(model["num_layers"]) for name, shape in block.items()}


def count_parameters(model: Mapping) -> int:
    """Parameters of the backbone of a `model` section, the output matrix included."""
    embeddings = model["vocabulary_size"] * model["hidden_dim"] * (1 if model["tie_word_embeddings"] else 2)
    norms = (2 * model["num_layers"] + 1) * model["hidden_dim"]
    return embeddings + norms + sum(inputs * outputs for inputs, outputs in linear_shapes(model).values())


def count_lora_parameters(model: Mapping, lora: Mapping) -> int:
    """Trainable parameters that a `lora` section adds to a `model` section; 0 for rank 0."""
    if lora["rank"] == 0:
        return 0
    shapes = linear_shapes(model)
    return sum(lora["rank"] * sum(shapes[path]) for path in low_rank.matching_paths(lora["targets"], list(shapes)))
