"""Second-order rounding of a model's kernels (GPTQ, Frantar et al. 2022, arXiv:2210.17323), over text that it writes.

What counts is which inputs of a matrix go together, and random tokens hardly show that (docs/adr/0010). So the model
is first let write: `NUM_SEQUENCES` random tokens are continued by `NUM_TOKENS - 1` tokens each, drawn from its own
distribution, its matrices in memory as int8. Then the same tokens run through once more, and each matrix is rounded
by the second moments of its own inputs. Both is done in NumPy, with one floating-point matrix in memory at a time.

It takes a minute or two for 135M parameters, and its time grows with the square of the width.

The first position is one of a kind: later ones attend to it, and it is many times as large. It counts for
`FIRST_SHARE`.

Numerics: float64. What is drawn and the second moments are then rounded, so that another order of summation, on another
machine, gives the same integers.

Shape letters: B sequences, S positions, I inputs, V vocabulary.
"""

from __future__ import annotations

import logging

import numpy as np

from llama_exp.architecture import Quantization
from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.formats.quantized import dequantized, finite, form_of, of_matrix, quantize, quantized, stored_groups
from llama_exp.reference import layer_outputs, watch_blocks

NUM_SEQUENCES, NUM_TOKENS = 64, 32
FIRST_SHARE = 1 / 16
_LOGIT_STEPS = 1024  # in one unit of a logit; a float64 sum is certain to far less
_CORRELATION_STEPS = 4096
_log = logging.getLogger(__name__)


def kernels(checkpoint: Checkpoint, quantization: Quantization) -> dict[str, dict[str, np.ndarray]]:
    """What is stored for every int4 kernel of the blocks, by its path: see `formats.quantized.quantize`.

    Args:
        checkpoint: open, with floating-point weights; its matrices are read three times.
        quantization: of mode int4.

    Raises:
        ValueError: a weight is not finite.
    """
    from llama_exp.second_order import round_groups  # Numba: only for those who need it

    found, seen = {}, {}
    _log.info(
        "quantization.gptq: the model writes %d texts of %d tokens, then its matrices are rounded by what they read",
        NUM_SEQUENCES,
        NUM_TOKENS,
    )

    def watch(path: str, x_BSI: np.ndarray) -> None:
        own = of_matrix(path, quantization)
        if own.mode != "int4":
            return
        if seen.get("inputs") is not x_BSI:  # query, key and value share theirs
            seen.update(inputs=x_BSI, moments=second_moments(x_BSI))
        matrix = finite(checkpoint.tensors[path].read(np.dtype("float32")))
        found[path] = stored_groups(*round_groups(matrix, own.group_size, seen["moments"]), form_of(path), own)

    with np.errstate(all="ignore"):  # weights that are not finite are told where they are rounded
        token_ids_BS = written_tokens(checkpoint)
    watch_blocks(checkpoint, token_ids_BS, watch)
    return found


def written_tokens(checkpoint: Checkpoint) -> np.ndarray:
    """Token ids (B, S) of which all but the first are drawn from the model's distribution; always the same."""
    generator = np.random.default_rng(0)
    vocabulary_size = checkpoint.config["vocabulary_size"]
    token_ids_BS = generator.integers(0, vocabulary_size, (NUM_SEQUENCES, 1))
    model, past = _in_int8(checkpoint), {}
    while token_ids_BS.shape[1] < NUM_TOKENS:
        output = dict(layer_outputs(model, token_ids_BS[:, -1:], past=past))["logits"]
        # The largest of logits and Gumbel noise is a draw from their softmax.
        noisy_BV = output[:, 0] + generator.gumbel(size=(NUM_SEQUENCES, vocabulary_size))
        next_B1 = np.rint(noisy_BV * _LOGIT_STEPS).argmax(axis=1)[:, None]
        token_ids_BS = np.concatenate([token_ids_BS, next_B1], axis=1)
    return token_ids_BS


def _in_int8(checkpoint: Checkpoint) -> Checkpoint:
    """The same model, of which the matrices are in memory as int8: files would be read `NUM_TOKENS` times."""
    int8, done = Quantization("int8", False), {}
    for path, tensor in checkpoint.tensors.items():
        if form_of(path) is not None:
            done[path] = quantize(tensor.read(np.dtype("float32")), form_of(path), int8)
    return dequantized(quantized(checkpoint, int8, done=done))


def second_moments(x_BSI: np.ndarray) -> np.ndarray:
    """The sum of x^T x, (I, I) float64, the first position counted for `FIRST_SHARE` of all.

    The diagonal is in eighths of a power of two, relative to the largest, and the rest in 4096ths of what it can be.
    The unit matrix where there is nothing to tell inputs apart.
    """
    positions = x_BSI.shape[1]
    weight_S = np.ones(positions)
    weight_S[0] = max(1.0, (positions - 1) * FIRST_SHARE / (1 - FIRST_SHARE))
    x_MI = (x_BSI * np.sqrt(weight_S)[:, None]).reshape(-1, x_BSI.shape[-1])
    moments_II = x_MI.T @ x_MI
    size_I = np.sqrt(np.diag(moments_II))
    largest = size_I.max()
    if not (np.isfinite(largest) and largest > 0):
        return np.eye(len(size_I))
    size_I = np.maximum(size_I, 1e-12 * largest)
    moments_II /= size_I[:, None]
    moments_II /= size_I
    moments_II = np.rint(moments_II * _CORRELATION_STEPS) / _CORRELATION_STEPS
    rounded_I = np.exp2(np.rint(16 * np.log2(size_I / largest)) / 16).astype("float32").astype("float64")
    return moments_II * rounded_I[:, None] * rounded_I
