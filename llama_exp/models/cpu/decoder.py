"""One token for every row of a batch, on a CPU: the decoder blocks over a cache, with the weights where they lie.

    x = embed(token);  x = block_i(x) for each i;  logits = norm(x) W        the model of `backbone.py`, for S = 1

The same model as `attention.py` and `decoder.py`, in NumPy arrays and functions that Numba compiles. What it is for and
what it costs in bits: `cpu/kernels.py`. The tests hold it against the model's own call for every kind of weights.

Numerics: activations, cache and sums in float32 whatever the policy; only the weights have their stored type.

Shape letters: B batch, D hidden_dim, F intermediate_dim, N query heads, K key/value heads, H head_dim, T cache slots,
V vocabulary, I inputs, O outputs, P threads.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import ml_dtypes
import numba
import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp.formats.quantized import SCALE, TABLE, ZERO, dequantize
from llama_exp.formats.rounding import FLOAT8
from llama_exp.lora.dora import DoraAdapter
from llama_exp.models.cpu.adapters import Adapter
from llama_exp.models.cpu.block import Block, Layers, Room, multiply_kernel, multiply_table, normalize, run_block
from llama_exp.models.cpu.kernels import Floats, Packed, Scaled
from llama_exp.models.cpu.mixed import Mixed
from llama_exp.models.rope import rope_tables

# The gain over one compiled function shrinks with rows, for which that keeps weights in registers: docs/adr/0011.
MOST_ROWS = 8
_FLOATS = ("float32", "bfloat16")
# Numba's simplest pool of threads ends the process when two threads of Python use it at once.
_ONE_AT_A_TIME = threading.Lock()


def can_decode(backbone, num_rows: int) -> bool:
    """Whether `CpuDecoder` computes what `backbone` does, and faster than its compiled call would."""
    from llama_exp.models.backbone import LlamaBackbone

    if type(backbone) is not LlamaBackbone or num_rows > MOST_ROWS or backend.device_kind() != "cpu":
        return False
    embedding = getattr(backbone.token_embedding, "quantization", None)
    return backbone.compute_dtype in _FLOATS and (embedding is None or embedding.mode != "int4")


class CpuDecoder:
    """Goes on from a cache that the backbone has filled with a prompt.

    Weights are read where the framework keeps them, without a copy: the object must not outlive their next change.

    Args:
        backbone: a `LlamaBackbone`, maybe quantized, maybe with adapters.
        cache: of `call_with_cache` after the prompt, T slots.
        num_steps: tokens that will be added.
        first_slot_B: where each row's prompt begins in the cache; what is in front of it is padding.
    """

    def __init__(self, backbone, cache: list, num_steps: int, first_slot_B: np.ndarray):
        self._backbone = backbone
        self._first_slot_B = first_slot_B.astype(np.int64)
        self._slot = cache[0][0].shape[2]
        caches = [tuple(_add_room(array, num_steps) for array in pair) for pair in cache]
        self._blocks = [_block(*pair) for pair in zip(backbone.transformer_layers, caches, strict=True)]
        self._norm = _float32(backend.view(backbone.layer_norm.scale))
        self._table = parts_of(backbone.token_embedding, "embeddings")
        self._output, self._is_table = _output_matrix(backbone.token_embedding)
        self._room = _room(backbone, len(first_slot_B))
        positions = np.arange(self._slot + num_steps, dtype="int32")[None, :]
        tables = rope_tables(positions, backbone._frequencies, backbone.rope_position_scaling_factor, "float32")
        self._rope = np.stack([ops.convert_to_numpy(table)[0, 0] for table in tables])  # (4, T, H)

    def step(self, token_B: np.ndarray) -> np.ndarray:
        """Adds a token to each row, (B,) integers, and returns the logits (B, V) float32 of the next one."""
        position_B = self._slot - self._first_slot_B
        cos_query, sin_query, cos_key, sin_key = np.ascontiguousarray(self._rope[:, position_B])
        tables = (cos_query, sin_query, cos_key, sin_key)
        x_BD = self._embed(token_B)
        epsilon = np.float32(self._backbone.layer_norm_epsilon)
        logits_BV = np.empty((len(token_B), self._backbone.vocabulary_size), np.float32)
        with _ONE_AT_A_TIME:
            for block in self._blocks:
                run_block(x_BD, block, self._slot, self._first_slot_B, tables, epsilon, self._room)
            normalize(x_BD, self._norm, epsilon, self._room.normed)
            if self._is_table:
                multiply_table(self._room.normed, self._output, logits_BV)
            else:
                multiply_kernel(self._room.normed, self._output, logits_BV, self._room.scratch)
        self._slot += 1
        return logits_BV

    def _embed(self, token_B):
        rows = {suffix: part[token_B] for suffix, part in self._table.items()}
        embedding = self._backbone.token_embedding
        if SCALE not in rows:
            return _float32(rows[""])
        if embedding.quantization.mode == "float8":
            rows[""] = rows[""].view(FLOAT8)
        return dequantize(rows, (len(token_B), embedding.hidden_dim), TABLE, embedding.quantization)


def _add_room(cache, num_steps: int) -> np.ndarray:
    """The cache (B, K, T, H) in float32 with `num_steps` more slots."""
    cache = ops.convert_to_numpy(ops.cast(cache, "float32"))
    return np.pad(cache, ((0, 0), (0, 0), (0, num_steps), (0, 0)))


def _room(backbone, num_rows: int) -> Room:
    width, intermediate = backbone.hidden_dim, backbone.intermediate_dim
    narrow = width // backbone.num_query_heads * backbone.num_key_value_heads
    widths = (width, width, narrow, narrow, width, width, intermediate, intermediate)
    at_once = max(width + 2 * narrow, 2 * intermediate, backbone.vocabulary_size)  # outputs of one `products`
    arrays = [np.empty((num_rows, size), np.float32) for size in widths]
    scratch = np.empty((numba.get_num_threads(), num_rows * at_once), np.float32)
    return Room._make([*arrays, scratch])


def _block(block, cache) -> Block:
    attention = block.self_attention
    return Block(
        _float32(backend.view(block.self_attention_layernorm.scale)),
        _layers(attention.query, attention.key, attention.value),
        _layers(attention.attention_output),
        _float32(backend.view(block.feedforward_layernorm.scale)),
        _layers(block.feedforward_gate_dense, block.feedforward_intermediate_dense),
        _layers(block.feedforward_output_dense),
        *cache,
    )


def _layers(*linears) -> Layers:
    adapters = tuple(map(_adapter, linears))
    packed: list[int] = []
    others: list[int] = []
    for place, linear in enumerate(linears):
        quantization = getattr(linear, "quantization", None)
        (packed if quantization is not None and quantization.mode == "int4" else others).append(place)
    if not packed or not others:
        return Layers(_kernels(linears, "kernel", linears[0].input_dim), adapters)
    kinds = [_kernels([linears[place] for place in kind], "kernel", linears[0].input_dim) for kind in (packed, others)]
    return Layers(Mixed._make([*kinds, tuple(packed), tuple(others)]), adapters)


def _adapter(linear) -> Adapter | None:
    adapter = linear.adapter
    if adapter is None:
        return None
    factor = ops.convert_to_numpy(adapter.factors(linear._product)) if isinstance(adapter, DoraAdapter) else 1.0
    factor = np.broadcast_to(np.float32(factor), (linear.output_dim,)).copy()
    return Adapter(backend.view(adapter.lora_a), backend.view(adapter.lora_b) * np.float32(adapter.scale), factor)


def _output_matrix(embedding) -> tuple[NamedTuple, bool]:
    """The matrix of the logits, and whether it is a table (V, D) or a kernel (D, V)."""
    is_table = embedding.tie_word_embeddings
    name = "embeddings" if is_table else "reverse_embeddings"
    return _kernels([embedding], name, embedding.hidden_dim), is_table


def _kernels(layers, name: str, num_inputs: int) -> NamedTuple:
    """The matrices `name` of layers that are stored in the same way, as `cpu.kernels` takes them."""
    parts = [parts_of(layer, name) for layer in layers]
    quantization = getattr(layers[0], "quantization", None)
    matrices = tuple(part[""] for part in parts)
    if quantization is None:
        return Floats(matrices)
    factors = tuple(part[SCALE] if ZERO in part else 1 / part[SCALE] for part in parts)
    if quantization.mode != "int4":
        rounds_rows = np.array([layer.quantization.quantize_activations for layer in layers])
        asymmetric = any(layer.quantization.asymmetric_activations for layer in layers)
        return Scaled(matrices, factors, rounds_rows, asymmetric)
    factors = tuple(np.atleast_2d(factor) for factor in factors)  # without groups: one group of all inputs
    zeros = tuple(_zeros(part, factor) for part, factor in zip(parts, factors, strict=True))
    return Packed(matrices, factors, zeros, quantization.group_size or num_inputs)


def _zeros(part, factor) -> np.ndarray:
    return part[ZERO].astype(np.float32) if ZERO in part else np.zeros_like(factor)


def parts_of(layer, name: str) -> dict[str, np.ndarray]:
    """The arrays of a matrix, by suffix: itself (see `backend.view`), and scales and zeros where it is quantized."""
    variables = {variable.name: variable for variable in layer.weights}
    return {part: backend.view(variables[name + part]) for part in ("", SCALE, ZERO) if name + part in variables}


def _float32(array) -> np.ndarray:
    """Values of float32, or of bfloat16 in the form that `backend.view` gives them."""
    return array if array.dtype == np.float32 else array.view(ml_dtypes.bfloat16).astype(np.float32)
