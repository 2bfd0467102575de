"""A decoder block for one token of every row, over a cache, in functions that Numba compiles for NumPy arrays.

    x += W_o attend(rotate(W_qkv norm(x)));  x += W_out (silu(W_gate norm(x)) * W_in norm(x))       S = 1, in place

Numerics: float32 throughout.

Shape letters: B batch, D hidden_dim, F intermediate_dim, N query heads, K key/value heads, H head_dim, T cache slots,
V vocabulary, P threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from llama_exp.models.cpu.adapters import adapt
from llama_exp.models.cpu.kernels import FAST, products, table_product


class Layers(NamedTuple):
    """Linear layers of the same input: kernels as in `cpu.kernels` or `Mixed`, and for each an `Adapter` or None."""

    kernels: NamedTuple
    adapters: tuple


class Block(NamedTuple):
    """The weights of a decoder block and its part of the cache, keys and values (B, K, T, H)."""

    attention_norm: np.ndarray
    query_key_value: Layers
    attention_output: Layers
    feedforward_norm: np.ndarray
    gate_intermediate: Layers
    feedforward_output: Layers
    keys: np.ndarray
    values: np.ndarray


class Room(NamedTuple):
    """Arrays that every block writes anew."""

    normed: np.ndarray  # (B, D)
    query: np.ndarray  # (B, N * H)
    key: np.ndarray  # (B, K * H)
    value: np.ndarray  # (B, K * H)
    attended: np.ndarray  # (B, N * H)
    added: np.ndarray  # (B, D)
    gate: np.ndarray  # (B, F)
    up: np.ndarray  # (B, F)
    scratch: np.ndarray  # (P, B * outputs of one `products`)


@numba.njit(fastmath=FAST, cache=True)
def normalize(x, scale, epsilon, y):
    """Writes x / sqrt(mean(x^2) + epsilon) * scale to y, (B, D)."""
    for b in range(x.shape[0]):
        total = np.float32(0)
        for d in range(x.shape[1]):
            total += x[b, d] * x[b, d]
        inverse = np.float32(1) / np.sqrt(total / np.float32(x.shape[1]) + epsilon)
        for d in range(x.shape[1]):
            y[b, d] = x[b, d] * inverse * scale[d]


@numba.njit(fastmath=FAST, cache=True)
def _rotate(x, cos, sin):
    """Turns the heads of x (B, N * H) in place: each x cos + (its halves exchanged) sin, tables (B, H)."""
    head_dim = cos.shape[1]
    half = head_dim // 2
    for b in range(x.shape[0]):
        for start in range(0, x.shape[1], head_dim):
            for e in range(half):
                low, high = x[b, start + e], x[b, start + half + e]
                x[b, start + e] = low * cos[b, e] + high * sin[b, e]
                x[b, start + half + e] = high * cos[b, half + e] + low * sin[b, half + e]


@numba.njit(fastmath=FAST, cache=True)
def _store(x, cache, slot):
    """Puts x (B, K * H) into the cache (B, K, T, H)."""
    for b in range(cache.shape[0]):
        for k in range(cache.shape[1]):
            cache[b, k, slot] = x[b, k * cache.shape[3] : (k + 1) * cache.shape[3]]


@numba.njit(fastmath=FAST, cache=True, parallel=True)
def _attend(query, keys, values, slot, first_slot, y):
    """Writes softmax(q k^T) v over each row's slots first_slot .. slot to y (B, N * H); q carries 1 / sqrt(H)."""
    num_rows, num_groups, _, head_dim = keys.shape
    num_heads = query.shape[1] // head_dim
    for index in numba.prange(num_rows * num_heads):
        b, n = index // num_heads, index % num_heads
        k, first = n // (num_heads // num_groups), first_slot[b]
        q, out = query[b, n * head_dim : (n + 1) * head_dim], y[b, n * head_dim : (n + 1) * head_dim]
        scores = np.empty(slot + 1 - first, np.float32)
        for t in range(first, slot + 1):
            score, key = np.float32(0), keys[b, k, t]
            for h in range(head_dim):
                score += q[h] * key[h]
            scores[t - first] = score
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
        out[:] = 0
        for t in range(first, slot + 1):
            weight, value = scores[t - first], values[b, k, t]
            for h in range(head_dim):
                out[h] += weight * value[h]


@numba.njit(fastmath=FAST, cache=True)
def _gate(gate, up):
    """Turns gate into silu(gate) * up, (B, F)."""
    for b in range(gate.shape[0]):
        for f in range(gate.shape[1]):
            gate[b, f] = gate[b, f] / (np.float32(1) + np.exp(-gate[b, f])) * up[b, f]


@numba.njit(cache=True)
def run_block(x, block, slot, first_slot, tables, epsilon, room):
    """Takes x (B, D) through a decoder block, in place; its keys and values go into `slot` of the cache."""
    cos_query, sin_query, cos_key, sin_key = tables
    normalize(x, block.attention_norm, epsilon, room.normed)
    _run_layers(room.normed, block.query_key_value, (room.query, room.key, room.value), room.scratch)
    _rotate(room.query, cos_query, sin_query)
    _rotate(room.key, cos_key, sin_key)
    _store(room.key, block.keys, slot)
    _store(room.value, block.values, slot)
    _attend(room.query, block.keys, block.values, slot, first_slot, room.attended)
    _run_layers(room.attended, block.attention_output, (room.added,), room.scratch)
    x += room.added
    normalize(x, block.feedforward_norm, epsilon, room.normed)
    _run_layers(room.normed, block.gate_intermediate, (room.gate, room.up), room.scratch)
    _gate(room.gate, room.up)
    _run_layers(room.gate, block.feedforward_output, (room.added,), room.scratch)
    x += room.added


@numba.njit(cache=True)
def _run_layers(x, layers, ys, scratch):
    products(x, layers.kernels, ys, scratch)
    adapt(x, layers.adapters, ys)


@numba.njit(cache=True)
def multiply_kernel(x, kernel, y, scratch):
    """Writes the product of x (B, D) and one kernel (D, V) to y (B, V)."""
    products(x, kernel, (y,), scratch)


@numba.njit(cache=True)
def multiply_table(x, table, y):
    """Writes the product of x (B, D) and a table (V, D) transposed to y (B, V)."""
    table_product(x, table, y)
