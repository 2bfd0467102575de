"""What a run will need, from its config alone: parameters, tokens, arithmetic, memory, disk. Imports no framework.

Memory is an estimate of the training step's peak, by component:

    weights      every parameter of the base model, in the precision's variable type, or quantized with their scales
    dequantized  the largest matrix of a quantized model as floats, while it multiplies
    adapters     LoRA's A and B, DoRA's magnitudes, float32
    gradients    of what trains; with accumulation, a sum and one micro-batch's
    optimizer    two float32 moments of what trains
    activations  what the backward pass reads, for one micro-batch
    logits       one chunk of the loss and its gradient, float32

Activations kept per layer and token, in numbers of the compute type (D hidden_dim, F intermediate_dim, S
sequence_length, N query heads, K key/value heads): the inputs of both norms and their outputs (4 D); query and
attention's output (2 D), key and value (2 D K/N); attention weights (N S), unless remat=attention; gate, up and their
product (3 F); under DoRA, what each magnitude multiplies. With remat=block, each block keeps only its input (D), and
one block at a time the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from llama_exp.architecture import (
    AS_STORED,
    Quantization,
    count_flops_per_token,
    count_parameters,
    linear_shapes,
    make_quantization,
)
from llama_exp.config.identity import to_dict
from llama_exp.config.schema import Config, ModelConfig
from llama_exp.formats.quantized import variable_parts
from llama_exp.limits.trainer import Remat
from llama_exp.lora.source import count_lora_matrices_and_magnitudes, count_lora_parameters, ranks
from llama_exp.run.room import count_disk_bytes

FLOAT32_BYTES = 4
VARIABLE_BYTES = {"float32": 4, "bfloat16": 2, "mixed_bfloat16": 4, "mixed_float16": 4}
COMPUTE_BYTES = {"float32": 4, "bfloat16": 2, "mixed_bfloat16": 2, "mixed_float16": 2}


@dataclass(frozen=True)
class Plan:
    """The size of a run.

    flops_per_token: additions and multiplications of forward and backward pass per trained token.
    memory_bytes: component -> bytes at the peak of a training step.
    disk_bytes: component -> bytes that the run folder will hold at its peak; see `run.room`.
    """

    num_parameters: int
    num_trainable_parameters: int
    tokens_per_step: int
    total_tokens: int
    flops_per_token: int
    memory_bytes: dict[str, int]
    disk_bytes: dict[str, int]


def make_plan(config: Config) -> Plan | None:
    """The plan of a run; None where a class of the user's own decides its size."""
    sequence_length = to_dict(config.dataset).get("sequence_length")
    if not isinstance(config.model, ModelConfig) or not isinstance(sequence_length, int):
        return None
    model, lora = to_dict(config.model), to_dict(config.lora)
    num_base, num_adapter = count_parameters(model), count_lora_parameters(model, lora)
    tokens_per_step = config.trainer.batch_size * config.trainer.accumulation_steps * sequence_length
    return Plan(
        num_parameters=num_base + num_adapter,
        num_trainable_parameters=num_adapter or num_base,
        tokens_per_step=tokens_per_step,
        total_tokens=tokens_per_step * config.trainer.max_steps,
        flops_per_token=count_flops_per_token(model, ranks(lora, model), sequence_length),
        memory_bytes=_memory_bytes(config, model, sequence_length, num_base, num_adapter),
        disk_bytes=count_disk_bytes(config, num_base, num_adapter, VARIABLE_BYTES[config.precision.policy.value]),
    )


def _memory_bytes(config: Config, model: Mapping[str, Any], sequence_length: int, num_base: int, num_adapter: int):
    """Component -> bytes; the module's docstring has the terms."""
    policy, trainer = config.precision.policy.value, config.trainer
    num_trainable = num_adapter or num_base
    gradient_bytes = FLOAT32_BYTES if num_adapter else VARIABLE_BYTES[policy]
    summed_bytes = FLOAT32_BYTES if trainer.accumulation_steps > 1 else 0
    tokens = trainer.batch_size * sequence_length
    per_block = _activation_bytes_per_token(model, sequence_length, COMPUTE_BYTES[policy], trainer.remat)
    _, num_magnitudes = count_lora_matrices_and_magnitudes(model, to_dict(config.lora))
    per_block += math.ceil(num_magnitudes / model["num_layers"]) * COMPUTE_BYTES[policy]
    block_input = model["hidden_dim"] * COMPUTE_BYTES[policy]
    blocks = model["num_layers"] * (block_input if trainer.remat is Remat.block else per_block)
    quantization = _quantization(config)
    return {
        "weights": _weights_bytes(model, quantization, VARIABLE_BYTES[policy]),
        "dequantized": _largest_matrix(model) * COMPUTE_BYTES[policy] if quantization else 0,
        "adapters": num_adapter * FLOAT32_BYTES,
        "gradients": num_trainable * (gradient_bytes + summed_bytes),
        "optimizer": num_trainable * 2 * FLOAT32_BYTES,
        "activations": tokens * (blocks + (per_block if trainer.remat is Remat.block else 0)),
        "logits": 2 * min(config.objective.chunk_tokens, tokens) * model["vocabulary_size"] * FLOAT32_BYTES,
    }


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


def rows(plan: Plan) -> list[tuple[str, str]]:
    """The plan as labels and texts, for a table."""
    share = plan.num_trainable_parameters / plan.num_parameters
    total_flops = plan.flops_per_token * plan.total_tokens
    return [
        ("parameters", f"{plan.num_parameters:,}, of which {plan.num_trainable_parameters:,} train ({share:.3%})"),
        ("tokens", f"{plan.tokens_per_step:,} per step, {plan.total_tokens:,} in all"),
        ("arithmetic", f"{_short(plan.flops_per_token)}FLOP per token, {_short(total_flops)}FLOP in all"),
        ("memory", _total(plan.memory_bytes, " beside the frameworks")),
        ("disk", _total(plan.disk_bytes)),
    ]


def show(plan: Plan, console: Console, data: str) -> None:
    """Prints the plan as a small table, with a line about the data."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for label, text in [*rows(plan), ("data", data)]:
        table.add_row(label, text)
    console.print(table, highlight=False)


def _total(parts: Mapping[str, int], note: str = "") -> str:
    texts = [f"{component} {_gib(size)}" for component, size in parts.items() if size]
    return f"about {_gib(sum(parts.values()))}{note}: {', '.join(texts)}"


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**27 else f"{size / 2**20:,.1f} MiB"


def _short(count: float) -> str:
    for prefix in ("", "k", "M", "G", "T", "P"):
        if count < 1000:
            return f"{count:.3g} {prefix}"
        count /= 1000
    return f"{count:,.0f} E"
