"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), split-half form, with both known scalings.

Shape letters: B batch (1 where all rows share positions), S positions, N heads, H head_dim, E = H / 2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from keras import ops


class RopeTables(NamedTuple):
    """Cosines and signed sines of one forward pass, (B, 1, S, H) each, in the compute dtype.

    Queries have tables of their own because 1 / sqrt(H) of the attention scores is folded into them.
    """

    cos_query: object
    sin_query: object
    cos_key: object
    sin_key: object


def inverse_frequencies(
    head_dim: int,
    rope_max_wavelength: float,
    rope_frequency_adjustment_factor: float | None = None,
    rope_low_freq_factor: float | None = None,
    rope_high_freq_factor: float | None = None,
    rope_pretraining_sequence_length: int | None = None,
) -> np.ndarray:
    """Angle per position of each of the H / 2 pairs, (E,) float32.

        f_e = rope_max_wavelength ^ (-2e / H)

    With the four Llama 3.1 arguments (all or none), by wavelength w = 2 pi / f and pretraining length P:
    w > P / low: f / adjustment; w < P / high: f; between them a linear blend in P / w.

    Source: Llama 3.1 reference code, `apply_scaling` of meta-llama/llama-models.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    frequencies = np.float64(rope_max_wavelength) ** -exponents
    adjustment = (
        rope_frequency_adjustment_factor,
        rope_low_freq_factor,
        rope_high_freq_factor,
        rope_pretraining_sequence_length,
    )
    stated = [value for value in adjustment if value is not None]
    if stated:
        factor, low, high, length = stated
        turns = length * frequencies / (2 * math.pi)  # P / w
        kept_share = np.clip((turns - low) / (high - low), 0.0, 1.0)
        frequencies = frequencies * (kept_share + (1 - kept_share) / factor)
    return frequencies.astype(np.float32)


def rope_tables(position_ids, frequencies: np.ndarray, position_scaling_factor: float, dtype: str) -> RopeTables:
    """The tables for `position_ids`.

    Numerics: positions, angles, sines and cosines in float32; one cast to `dtype` at the end.

    Args:
        position_ids: integer tensor (B, S).
        frequencies: from `inverse_frequencies`, (E,).
        position_scaling_factor: positions are divided by it (linear scaling, Chen et al. 2023, arXiv:2306.15595).
        dtype: compute dtype of queries and keys.
    """
    positions_BS = ops.cast(position_ids, "float32")
    if position_scaling_factor != 1.0:
        positions_BS = positions_BS / position_scaling_factor
    angles_B1SE = positions_BS[:, None, :, None] * ops.convert_to_tensor(frequencies, dtype="float32")
    cos_B1SE, sin_B1SE = ops.cos(angles_B1SE), ops.sin(angles_B1SE)
    cos = ops.concatenate([cos_B1SE, cos_B1SE], axis=-1)
    sin = ops.concatenate([-sin_B1SE, sin_B1SE], axis=-1)
    score_scale = 1.0 / math.sqrt(2 * len(frequencies))
    return RopeTables(*(ops.cast(table, dtype) for table in (cos * score_scale, sin * score_scale, cos, sin)))
