"""What a model should compute, layer by layer: a forward pass in NumPy, straight from the files. Imports no framework.

Written from the papers and apart from `llama_exp.models`, so that the two can be held against each other. Weights are
rounded to the model's own type and everything else is float64; one matrix is in memory at a time.

Shape letters: B batch, S positions, T those that are attended to, D hidden_dim, I inputs, O outputs of a linear layer,
N query heads, K key/value heads, G = N / K query heads that share keys and values, R = G S, M = B S, H head_dim,
E = H / 2, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np

from llama_exp.architecture import EMBEDDINGS, FINAL_NORM, REVERSE_EMBEDDINGS
from llama_exp.formats.checkpoint import Checkpoint, Tensor

COLUMNS = 4096  # of a matrix that are float64 at a time


def layer_outputs(
    checkpoint: Checkpoint,
    token_ids_BS: np.ndarray,
    dtype: np.dtype | None = None,
    watch: Callable[[str, np.ndarray], None] | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Hidden states after every layer, and the logits.

    Args:
        checkpoint: open, with floating-point weights.
        token_ids_BS: integers; no padding, positions count from 0.
        dtype: that the weights are rounded to, the variables' type of the model to compare with; None: as stored.
        watch: called with the path of a matrix and what it is about to be multiplied by (..., I).

    Yields:
        Path of a layer and its output (B, S, D) float64, in order: the token embedding, the blocks, the final norm;
        at last `logits` and (B, S, V).
    """
    return run(checkpoint.config, _StoredWeights(checkpoint.tensors, dtype, watch), token_ids_BS)


def run(
    config: Mapping, weights: Weights, token_ids_BS: np.ndarray, past: dict | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """As `layer_outputs`, with weights from anywhere.

    Args:
        config: the model's shape.
        weights: by path.
        token_ids_BS: integers; no padding, positions count from 0, or go on from those of `past`.
        past: keys and values (B, T, K, H) of the positions before, by path of an attention; extended in place.
    """
    x_BSD = weights.rows(EMBEDDINGS, token_ids_BS)
    yield "token_embedding", x_BSD
    past = {} if past is None else past
    start = next(iter(past.values()))[0].shape[1] if past else 0
    turn_SE = _turn(config, start + token_ids_BS.shape[1])[start:]
    for index in range(config["num_layers"]):
        block = f"transformer_layer_{index}"
        x_BSD = x_BSD + _attention(config, weights, f"{block}/self_attention", x_BSD, turn_SE, past)
        x_BSD = x_BSD + _feedforward(config, weights, block, x_BSD)
        yield block, x_BSD
    x_BSD = _norm(x_BSD, weights.vector(FINAL_NORM), config["layer_norm_epsilon"])
    yield FINAL_NORM.rpartition("/")[0], x_BSD
    if config["tie_word_embeddings"]:
        yield "logits", weights.linear(x_BSD, EMBEDDINGS, transposed=True)
    else:
        yield "logits", weights.linear(x_BSD, REVERSE_EMBEDDINGS)


def watch_blocks(checkpoint: Checkpoint, token_ids_BS: np.ndarray, watch: Callable[[str, np.ndarray], None]) -> None:
    """Runs tokens through the blocks alone, for what `watch` sees of their matrices; arguments of `layer_outputs`.

    Weights that are not finite raise and warn of nothing here.
    """
    last = f"transformer_layer_{checkpoint.config['num_layers'] - 1}"
    with np.errstate(all="ignore"):
        for layer, _ in layer_outputs(checkpoint, token_ids_BS, watch=watch):
            if layer == last:
                return


class Weights(Protocol):
    """The tensors of a model by path, as float64."""

    def vector(self, path: str) -> np.ndarray:
        """The scale of a norm, (D,)."""

    def rows(self, path: str, indices: np.ndarray) -> np.ndarray:
        """Rows of an embedding, (*indices.shape, D)."""

    def linear(self, x: np.ndarray, path: str, transposed: bool = False) -> np.ndarray:
        """The product of x (..., I) and a matrix (I, O), or (O, I) if `transposed`."""


class _StoredWeights:
    """The tensors of a checkpoint, read when they are used and not kept."""

    def __init__(self, tensors: Mapping[str, Tensor], dtype: np.dtype | None, watch: Callable | None):
        self._tensors, self._dtype, self._watch = tensors, dtype, watch

    def vector(self, path: str) -> np.ndarray:
        return self._tensors[path].read(self._dtype).astype(np.float64)

    def rows(self, path: str, indices: np.ndarray) -> np.ndarray:
        return self._tensors[path].read(self._dtype)[indices].astype(np.float64)

    def linear(self, x: np.ndarray, path: str, transposed: bool = False) -> np.ndarray:
        if self._watch is not None:
            self._watch(path, x)
        matrix = self._tensors[path].read(self._dtype)
        return product(x, matrix.T if transposed else matrix)


def product(x: np.ndarray, matrix_IO: np.ndarray) -> np.ndarray:
    """The product of x (..., I) float64 and a matrix of any type, of which `COLUMNS` are float64 at a time."""
    x_MI = x.reshape(-1, x.shape[-1])
    output_MO = np.empty((len(x_MI), matrix_IO.shape[1]))
    for start in range(0, matrix_IO.shape[1], COLUMNS):
        columns = slice(start, start + COLUMNS)
        output_MO[:, columns] = x_MI @ matrix_IO[:, columns].astype(np.float64)
    return output_MO.reshape(*x.shape[:-1], -1)


def _norm(x_BSD: np.ndarray, scale_D: np.ndarray, epsilon: float) -> np.ndarray:
    """Root mean square norm (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    return x_BSD / np.sqrt(np.mean(np.square(x_BSD), axis=-1, keepdims=True) + epsilon) * scale_D


def _attention(
    config: Mapping, weights: Weights, path: str, x_BSD: np.ndarray, turn_SE: np.ndarray, past: dict
) -> np.ndarray:
    """Causal attention with rotary positions and shared keys and values (Ainslie et al. 2023, arXiv:2305.13245)."""
    B, S, _ = x_BSD.shape
    N, K = config["num_query_heads"], config["num_key_value_heads"]
    H = config["hidden_dim"] // N
    normed_BSD = _norm(x_BSD, weights.vector(f"{path}_layernorm/scale"), config["layer_norm_epsilon"])
    query = weights.linear(normed_BSD, f"{path}/query/kernel").reshape(B, S, K, N // K, H)
    key = weights.linear(normed_BSD, f"{path}/key/kernel").reshape(B, S, K, 1, H)
    value = weights.linear(normed_BSD, f"{path}/value/kernel").reshape(B, S, K, H)
    query, key = _turned(query, turn_SE), _turned(key, turn_SE)[..., 0, :]
    if path in past:
        key, value = (np.concatenate(both, axis=1) for both in zip(past[path], (key, value), strict=True))
    past[path] = key, value
    T = key.shape[1]
    G = N // K
    query_BKRH = query.transpose(0, 2, 3, 1, 4).reshape(B, K, G * S, H)
    scores_BKGST = (query_BKRH @ key.transpose(0, 2, 3, 1)).reshape(B, K, G, S, T) / np.sqrt(H)
    scores_BKGST[..., np.triu(np.ones((S, T), bool), k=1 + T - S)] = -np.inf
    shares_BKGST = np.exp(scores_BKGST - scores_BKGST.max(axis=-1, keepdims=True))
    shares_BKGST /= shares_BKGST.sum(axis=-1, keepdims=True)
    mixed_BKRH = shares_BKGST.reshape(B, K, G * S, T) @ value.transpose(0, 2, 1, 3)
    mixed_BSD = mixed_BKRH.reshape(B, K, G, S, H).transpose(0, 3, 1, 2, 4).reshape(B, S, N * H)
    return weights.linear(mixed_BSD, f"{path}/attention_output/kernel")


def _feedforward(config: Mapping, weights: Weights, block: str, x_BSD: np.ndarray) -> np.ndarray:
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""
    normed_BSD = _norm(x_BSD, weights.vector(f"{block}/feedforward_layernorm/scale"), config["layer_norm_epsilon"])
    gate = weights.linear(normed_BSD, f"{block}/feedforward_gate_dense/kernel")
    inner = weights.linear(normed_BSD, f"{block}/feedforward_intermediate_dense/kernel")
    with np.errstate(over="ignore"):  # exp of a large number: the gate is 0 then
        inner *= gate / (1 + np.exp(-gate))
    return weights.linear(inner, f"{block}/feedforward_output_dense/kernel")


def _turned(x: np.ndarray, turn_SE: np.ndarray) -> np.ndarray:
    """Rotary embedding of x (B, S, K, heads, H): numbers e and e + E of a head are one complex number, turned."""
    E = x.shape[-1] // 2
    turned = (x[..., :E] + 1j * x[..., E:]) * turn_SE[:, None, None, :]
    return np.concatenate([turned.real, turned.imag], axis=-1)


def _turn(config: Mapping, num_positions: int) -> np.ndarray:
    """The complex number of absolute value 1 that each pair is multiplied by at each position, (S, E)."""
    E = config["hidden_dim"] // config["num_query_heads"] // 2
    frequency_E = config["rope_max_wavelength"] ** (-np.arange(E) / E)
    if config["rope_frequency_adjustment_factor"] is not None:
        # Llama 3.1: slow pairs are slowed down, quick ones are left, and between them the two are mixed.
        rounds_E = config["rope_pretraining_sequence_length"] * frequency_E / (2 * np.pi)
        low, high = config["rope_low_freq_factor"], config["rope_high_freq_factor"]
        kept_E = np.clip((rounds_E - low) / (high - low), 0, 1)
        frequency_E = frequency_E * (kept_E + (1 - kept_E) / config["rope_frequency_adjustment_factor"])
    position_S = np.arange(num_positions) / config["rope_position_scaling_factor"]
    return np.exp(1j * np.outer(position_S, frequency_E))
