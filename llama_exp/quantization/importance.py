"""How much each input of a matrix counts when the matrix is rounded: its mean square, seen by the model itself.

A few inputs of a Llama's matrices are many times as large as the others (one of 576 had 20 to 70 % of the energy of all
in SmolLM2-135M; Dettmers et al. 2022, arXiv:2208.07339), and errors of their weights do the damage. Which ones they are
follows from the weights: tokens drawn at random run through the model, in NumPy and with one matrix in memory at a
time. No text is needed. docs/adr/0010 has what it is worth.

Numerics: float64, and the result in quarters of a power of two, so that another order of summation, on another machine,
gives the same numbers.

Shape letters: S positions, I inputs.
"""

from __future__ import annotations

import numpy as np

from llama_exp import recipe
from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.reference import watch_blocks

NUM_TOKENS = recipe.IMPORTANCE["num_tokens"]


def of_inputs(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Importance of the inputs of every linear layer, (I,) float32 above 0, by the path of its kernel.

    Args:
        checkpoint: open, with floating-point weights; every matrix of its blocks is read once.
    """
    found = {}

    def watch(path: str, x_BSI: np.ndarray) -> None:
        found[path] = _rounded(np.mean(np.square(x_BSI), axis=(0, 1)))

    token_ids_BS = np.random.default_rng(0).integers(0, checkpoint.config["vocabulary_size"], (1, NUM_TOKENS))
    watch_blocks(checkpoint, token_ids_BS, watch)  # weights that are not finite are told where they are rounded
    return found


def _rounded(square_I: np.ndarray) -> np.ndarray:
    """Rounded shares of a power of two, relative to the largest; ones where there is nothing to tell them apart."""
    largest = square_I.max()
    if not (np.isfinite(largest) and largest > 0):
        return np.ones(square_I.shape, "float32")
    exponent_I = np.log2(np.maximum(square_I / largest, recipe.IMPORTANCE["smallest"]))
    steps = recipe.IMPORTANCE["steps_per_octave"]
    return np.exp2(np.rint(steps * exponent_I) / steps).astype("float32")
