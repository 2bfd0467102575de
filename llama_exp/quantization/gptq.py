"""Second-order rounding of a model's kernels (GPTQ, Frantar et al. 2022, arXiv:2210.17323), over text that it writes.

What counts is which inputs of a matrix go together, and random tokens hardly show that (docs/adr/0010). So the model
is first let write: `NUM_SEQUENCES` random tokens are continued by `NUM_TOKENS - 1` tokens each, drawn from its own
distribution. Then the same tokens run through once more, and each matrix is rounded by the second moments of its own
inputs. The model is in memory as int8 for that, in NumPy, beside one floating-point matrix at a time.

It takes two minutes for 135M parameters, and its time grows with the square of the width.

The first position is one of a kind: later ones attend to it, and it is many times as large. It counts for
`FIRST_SHARE`.

Numerics: sums of products have a fixed order (`fixed_order`), the rest is float64. Inputs of products, what is drawn
and the second moments are rounded to far less than float64 has, so that the last bits of another machine's exponential
function, say, give the same integers.

Shape letters: B sequences, S positions, M = B S, I inputs, O outputs, D hidden_dim, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from llama_exp import recipe
from llama_exp.architecture import Quantization
from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.formats.quantized import KERNEL, finite, form_of, of_matrix, stored_groups
from llama_exp.formats.rounding import round_outputs
from llama_exp.reference import Weights, run

NUM_SEQUENCES, NUM_TOKENS = recipe.GPTQ["num_sequences"], recipe.GPTQ["num_tokens"]
TEMPERATURE, FIRST_SHARE = recipe.GPTQ["temperature"], recipe.GPTQ["first_share"]
_log = logging.getLogger(__name__)


def num_steps(config: Mapping) -> int:
    """How often `kernels` calls `advance`."""
    return NUM_TOKENS - 1 + config["num_layers"]


def kernels(
    checkpoint: Checkpoint, quantization: Quantization, advance: Callable[[], None] = lambda: None
) -> dict[str, dict[str, np.ndarray]]:
    """What is stored for every int4 kernel of the blocks, by its path: see `formats.quantized.quantize`.

    Args:
        checkpoint: open, with floating-point weights; its matrices are read twice.
        quantization: of mode int4.
        advance: called after each token of the texts and after each block.

    Raises:
        ValueError: a weight is not finite.
    """
    from llama_exp.quantization.gptq_rounding import factored, round_groups  # Numba: only for those who need it

    found: dict[str, dict[str, np.ndarray]] = {}
    seen: dict[str, Any] = {}
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
            seen.update(inputs=x_BSI, moments=factored(second_moments(x_BSI), own.group_size))
        matrix = finite(checkpoint.tensors[path].read(np.dtype("float32")))
        found[path] = stored_groups(*round_groups(matrix, own.group_size, seen["moments"]), KERNEL, own)

    with np.errstate(all="ignore"):  # weights that are not finite are told where they are rounded
        weights = Int8Weights(checkpoint)
        token_ids_BS = written_tokens(checkpoint.config, weights, advance)
        weights.watch = watch
        layers = run(checkpoint.config, weights, token_ids_BS)
        next(layers)  # the embedding
        for _ in range(checkpoint.config["num_layers"]):
            next(layers)
            advance()
    return found


def written_tokens(config: Mapping, weights: Weights, advance: Callable[[], None] = lambda: None) -> np.ndarray:
    """Token ids (B, S) of which all but the first are drawn from the model's distribution; always the same."""
    generator = np.random.default_rng(0)
    vocabulary_size = config["vocabulary_size"]
    token_ids_BS = generator.integers(0, vocabulary_size, (NUM_SEQUENCES, 1))
    past: dict[str, Any] = {}
    while token_ids_BS.shape[1] < NUM_TOKENS:
        output = dict(run(config, weights, token_ids_BS[:, -1:], past))["logits"]
        # The largest of logits and Gumbel noise is a draw from their softmax.
        noisy_BV = output[:, 0] / TEMPERATURE + generator.gumbel(size=(NUM_SEQUENCES, vocabulary_size))
        next_B1 = np.rint(noisy_BV * recipe.GPTQ["logit_steps"]).argmax(axis=1)[:, None]
        token_ids_BS = np.concatenate([token_ids_BS, next_B1], axis=1)
        advance()
    return token_ids_BS


class Int8Weights:
    """A model's weights in memory, its matrices as int8; see `reference.Weights`.

    `watch`, if set, is called with the path of a matrix and what it is about to be multiplied by (..., I).
    """

    def __init__(self, checkpoint: Checkpoint):
        self.watch: Callable[[str, np.ndarray], None] | None = None
        self._vectors, self._matrices = {}, {}
        for path, tensor in checkpoint.tensors.items():
            form = form_of(path)
            if form is None:
                self._vectors[path] = tensor.read(None).astype(np.float64)
            else:
                self._matrices[path] = round_outputs(tensor.read(np.dtype("float32")), form.input_axis)

    def vector(self, path: str) -> np.ndarray:
        """As of `Weights`."""
        return self._vectors[path]

    def rows(self, path: str, indices: np.ndarray) -> np.ndarray:
        """As of `Weights`."""
        numbers_VD, scale_V = self._matrices[path]
        return numbers_VD[indices] / scale_V[indices, None].astype(np.float64)

    def linear(self, x: np.ndarray, path: str, transposed: bool = False) -> np.ndarray:
        """As of `Weights`."""
        from llama_exp.quantization.ordered_products import product  # Numba

        if self.watch is not None:
            self.watch(path, x)
        numbers, scale_O = self._matrices[path]
        output_MO = product(x.reshape(-1, x.shape[-1]), numbers.T if transposed else numbers)
        return (output_MO / scale_O.astype(np.float64)).reshape(*x.shape[:-1], -1)


def second_moments(x_BSI: np.ndarray) -> np.ndarray:
    """The sum of x^T x, (I, I) float64, the first position counted for `FIRST_SHARE` of all.

    The diagonal is in eighths of a power of two, relative to the largest, and the rest in 4096ths of what it can be.
    The unit matrix where there is nothing to tell inputs apart.
    """
    from llama_exp.quantization.ordered_products import moments  # Numba

    positions = x_BSI.shape[1]
    weight_S = np.ones(positions)
    weight_S[0] = max(1.0, (positions - 1) * FIRST_SHARE / (1 - FIRST_SHARE))
    x_MI = (x_BSI * np.sqrt(weight_S)[:, None]).reshape(-1, x_BSI.shape[-1])
    moments_II = moments(x_MI).astype(np.float64)
    size_I = np.sqrt(np.diag(moments_II))
    largest = size_I.max()
    if not (np.isfinite(largest) and largest > 0):
        return np.eye(len(size_I))
    size_I = np.maximum(size_I, recipe.GPTQ["smallest_moment"] * largest)
    moments_II /= size_I[:, None]
    moments_II /= size_I
    steps = recipe.GPTQ["correlation_steps"]
    moments_II = np.rint(moments_II * steps) / steps
    steps = recipe.GPTQ["moment_steps_per_octave"]
    rounded_I = np.exp2(np.rint(steps * np.log2(size_I / largest)) / steps).astype("float32").astype("float64")
    return moments_II * rounded_I[:, None] * rounded_I
