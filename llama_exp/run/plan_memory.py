"""The memory of a run at its peak, by component, from its config alone. Imports no framework.

    frameworks   Python, Keras and the backend, and what they keep of compiling a step; measured, see FRAMEWORK_BYTES
    weights      every parameter of the base model, in the precision's variable type, or quantized with their scales
    casts        mixed precision's copy of them in the compute type
    dequantized  the largest matrix of a quantized model as floats, while it multiplies
    adapters     LoRA's A and B, DoRA's magnitudes, float32
    gradients    of what trains; with accumulation, a sum and one micro-batch's
    optimizer    float32 state of what trains, see `plan_state`; two moments for a class that is not ours
    activations  what the backward pass reads, for one micro-batch
    logits       one chunk of the loss, float32: logits, less their maximum, their exponentials, the gradient
    writing      copies for the checkpoint and the export, beside what the step holds

Activations kept per layer and token, in numbers of the compute type (D hidden_dim, F intermediate_dim, S
sequence_length, N query heads, K key/value heads): the inputs of both norms and their outputs (4 D); query and
attention's output (2 D), key and value (2 D K/N); attention weights (N S), unless remat=attention; gate, up and their
product (3 F); under DoRA, what each magnitude multiplies. With remat=block, each block keeps only its input (D), and
one block at a time the rest.

The sum is the largest resident set on a CPU. `benchmarks/plan_memory.py` compares it with runs; ADR 33 says what was
fitted. An accelerator holds all but `frameworks`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llama_exp.architecture import (
    AS_STORED,
    Quantization,
    count_parameters,
    linear_shapes,
    make_quantization,
)
from llama_exp.config.identity import to_dict
from llama_exp.config.schema import Config
from llama_exp.formats.quantized import variable_parts
from llama_exp.limits.runtime import Backend
from llama_exp.limits.trainer import Remat
from llama_exp.lora.source import count_lora_matrices_and_magnitudes
from llama_exp.run.plan_state import count_state_bytes, count_trainable

FRAMEWORKS = "frameworks"
# Measured: the largest resident set of runs less all other components. A third of TensorFlow's are pages of its
# libraries, a fifth what its graph optimizer and its compilers do not give back.
FRAMEWORK_BYTES = {Backend.tensorflow: 925 * 2**20, Backend.jax: 550 * 2**20}
LOGIT_ARRAYS = 4
FLOAT32_BYTES = 4
VARIABLE_BYTES = {"float32": 4, "bfloat16": 2, "mixed_bfloat16": 4, "mixed_float16": 4}
COMPUTE_BYTES = {"float32": 4, "bfloat16": 2, "mixed_bfloat16": 2, "mixed_float16": 2}


def count_repeated_flops(model: Mapping[str, Any], sequence_length: int, remat: Remat) -> int:
    """Additions and multiplications per token that the backward pass does a second time."""
    attention = 4 * model["num_layers"] * model["hidden_dim"] * sequence_length
    if remat is Remat.block:
        return 2 * sum(map(math.prod, linear_shapes(model).values())) + attention
    return attention // 2 if remat is Remat.attention else 0


def count_memory_bytes(
    config: Config, model: Mapping[str, Any], sequence_length: int, num_base: int, num_adapter: int
) -> dict[str, int]:
    """Component -> bytes; the module's docstring has the terms.

    Args:
        config: of the run.
        model: its section, as plain data.
        sequence_length: tokens of a row.
        num_base: parameters of the model.
        num_adapter: parameters of its adapters, which then train alone; 0: there are none.
    """
    policy, trainer = config.precision.policy.value, config.trainer
    num_trainable = count_trainable(model, to_dict(config.lora))
    state_bytes = count_state_bytes(config, model)
    if state_bytes is None:
        state_bytes = num_trainable * 2 * FLOAT32_BYTES
    gradient_bytes = FLOAT32_BYTES if num_adapter else VARIABLE_BYTES[policy]
    summed_bytes = FLOAT32_BYTES if trainer.accumulation_steps > 1 else 0
    tokens = trainer.batch_size * sequence_length
    per_block = _activation_bytes_per_token(model, sequence_length, COMPUTE_BYTES[policy], trainer.remat)
    _, num_magnitudes = count_lora_matrices_and_magnitudes(model, to_dict(config.lora))
    per_block += math.ceil(num_magnitudes / model["num_layers"]) * COMPUTE_BYTES[policy]
    block_input = model["hidden_dim"] * COMPUTE_BYTES[policy]
    blocks = model["num_layers"] * (block_input if trainer.remat is Remat.block else per_block)
    quantization = _quantization(config)
    is_mixed = VARIABLE_BYTES[policy] != COMPUTE_BYTES[policy]
    step = {
        "casts": num_base * COMPUTE_BYTES[policy] if is_mixed and quantization is None else 0,
        "dequantized": _largest_matrix(model) * COMPUTE_BYTES[policy] if quantization else 0,
        "gradients": num_trainable * (gradient_bytes + summed_bytes),
        "activations": tokens * (blocks + (per_block if trainer.remat is Remat.block else 0)),
        "logits": LOGIT_ARRAYS * min(config.objective.chunk_tokens, tokens) * model["vocabulary_size"] * FLOAT32_BYTES,
    }
    kept = {
        FRAMEWORKS: FRAMEWORK_BYTES[config.runtime.backend],
        "weights": _weights_bytes(model, quantization, VARIABLE_BYTES[policy]),
        "adapters": num_adapter * FLOAT32_BYTES,
        "optimizer": state_bytes,
    }
    if num_adapter:  # the base model's digest is taken tensor by tensor
        writing = 2 * _largest_matrix(model) * (1 if quantization else VARIABLE_BYTES[policy])
    else:
        writing = num_base * VARIABLE_BYTES[policy] + state_bytes
    # TensorFlow keeps what a step took; JAX gives it back before anything is written.
    if config.runtime.backend is Backend.jax:
        writing = max(0, writing - sum(step.values()))
    return kept | step | {"writing": writing}


def _quantization(config: Config) -> Quantization | None:
    """How the base model will be stored; a preset that is known after its download only counts as floating point."""
    section = to_dict(config.quantization)
    return None if section["mode"] == AS_STORED else make_quantization(**section)


def _weights_bytes(model: Mapping[str, Any], quantization: Quantization | None, float_bytes: int) -> int:
    if quantization is None:
        return count_parameters(model) * float_bytes
    parts = variable_parts(model, quantization).values()
    return sum(math.prod(shape) * (float_bytes if dtype is None else dtype.itemsize) for shape, dtype in parts)


def _largest_matrix(model: Mapping[str, Any]) -> int:
    matrices = [*linear_shapes(model).values(), (model["vocabulary_size"], model["hidden_dim"])]
    return max(math.prod(shape) for shape in matrices)


def _activation_bytes_per_token(
    model: Mapping[str, Any], sequence_length: int, compute_bytes: int, remat: Remat
) -> int:
    hidden_dim, num_heads = model["hidden_dim"], model["num_query_heads"]
    key_value_dim = hidden_dim // num_heads * model["num_key_value_heads"]
    attention_weights = 0 if remat is Remat.attention else num_heads * sequence_length
    return (6 * hidden_dim + 2 * key_value_dim + attention_weights + 3 * model["intermediate_dim"]) * compute_bytes
