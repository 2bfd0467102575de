"""Rotary tables against a case distinction written independently, and the property that makes them useful."""

import numpy as np
import oracles
import pytest
from keras import ops

from llama_exp.models.fused import rotate_heads
from llama_exp.models.rope import inverse_frequencies, rope_tables

pytestmark = pytest.mark.neutral

CONFIG = {
    "hidden_dim": 64,
    "num_query_heads": 1,
    "rope_max_wavelength": 500000.0,
    "rope_position_scaling_factor": 1.0,
    "rope_frequency_adjustment_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_pretraining_sequence_length": 8192,
}
ADJUSTMENT = {key: value for key, value in CONFIG.items() if key.startswith("rope_") and "position" not in key}


def test_llama31_frequencies_cover_all_three_bands():
    adjusted = inverse_frequencies(64, **ADJUSTMENT)
    plain = inverse_frequencies(64, 500000.0)
    np.testing.assert_allclose(adjusted, oracles.numpy_frequencies(CONFIG), rtol=1e-6)
    ratio = plain / adjusted
    assert ratio[0] == 1 and ratio[-1] == pytest.approx(8) and ((ratio > 1.1) & (ratio < 7.9)).any()


def test_frequencies_are_float32_powers():
    frequencies = inverse_frequencies(8, 10000)
    assert frequencies.dtype == np.float32
    np.testing.assert_allclose(frequencies, [1, 1e-1, 1e-2, 1e-3], rtol=1e-7)


def test_products_depend_on_distance_only():
    generator = np.random.default_rng(0)
    q, k = generator.normal(size=(2, 1, 16)).astype("float32")
    frequencies = inverse_frequencies(16, 10000)

    def product(query_position, key_position):
        tables = [rope_tables(np.array([[p]]), frequencies, 1.0, "float32") for p in (query_position, key_position)]
        turned_q = rotate_heads(ops.convert_to_tensor(q), tables[0].cos_query, tables[0].sin_query, 1)
        turned_k = rotate_heads(ops.convert_to_tensor(k), tables[1].cos_key, tables[1].sin_key, 1)
        return float(ops.sum(turned_q * turned_k))

    assert product(0, 0) == pytest.approx(float((q * k).sum()) / 4, abs=1e-6)  # 1 / sqrt(H)
    for distance in (1, 5, 40):
        assert product(distance, 0) == pytest.approx(product(distance + 77, 77), abs=1e-5)
    assert abs(product(5, 0) - product(0, 5)) > 1e-3


def test_scaling_divides_positions():
    frequencies = inverse_frequencies(8, 10000)
    scaled = rope_tables(np.array([[0, 4, 8]]), frequencies, 4.0, "float32")
    plain = rope_tables(np.array([[0, 1, 2]]), frequencies, 1.0, "float32")
    for one, other in zip(scaled, plain, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), atol=1e-7)


def test_angles_stay_float32_under_bfloat16():
    """In bfloat16 the position 1001 itself would be rounded to 1000."""
    frequencies = inverse_frequencies(8, 10000)
    cos = ops.convert_to_numpy(
        ops.cast(rope_tables(np.array([[1001]]), frequencies, 1.0, "bfloat16").cos_key, "float32")
    )
    assert cos[0, 0, 0, 0] == pytest.approx(np.cos(1001.0), abs=4e-3)
