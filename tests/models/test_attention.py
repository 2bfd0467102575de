"""Masks drawn out, and grouped heads without repeated keys and values."""

import numpy as np
import oracles
import pytest
from keras import ops

from llama_exp.models.attention import MASKED, SelfAttention, attention_bias
from llama_exp.models.rope import inverse_frequencies, rope_tables

pytestmark = pytest.mark.neutral


def visible(*args, **kwargs):
    bias = ops.convert_to_numpy(attention_bias(*args, **kwargs))
    assert set(np.unique(bias)) <= {0.0, np.float32(MASKED)}
    return (bias[:, 0] == 0).astype(int).tolist()


def test_causal_mask():
    assert visible(3, 3) == [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]


def test_padding_mask():
    found = visible(3, 3, padding_mask=np.array([[0, 1, 1], [1, 1, 0]]))
    assert found == [[[0, 0, 0], [0, 1, 0], [0, 1, 1]], [[1, 0, 0], [1, 1, 0], [1, 1, 0]]]


def test_segment_mask():
    found = visible(4, 4, segment_ids=np.array([[1, 1, 2, 0]]))
    assert found == [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]


@pytest.mark.parametrize("index", [2, "tensor"])
def test_mask_over_a_cache(index):
    index = ops.convert_to_tensor(2, dtype="int32") if index == "tensor" else index
    found = visible(2, 5, first_query=index, padding_mask=np.array([[0, 1, 1, 1, 1]]))
    assert found == [[[0, 1, 1, 0, 0], [0, 1, 1, 1, 0]]]


def run(attention, x_MD, length, **kwargs):
    rope = rope_tables(np.arange(length)[None], inverse_frequencies(8, 10000), 1.0, attention.compute_dtype)
    return attention(ops.convert_to_tensor(x_MD), rope=rope, bias_B1ST=attention_bias(length, length), **kwargs)[0]


def test_grouped_heads_equal_repeated_ones():
    """GQA with 2 key/value heads is MHA whose key and value kernels repeat each of them for its 2 query heads."""
    generator = np.random.default_rng(0)
    grouped, full = SelfAttention(4, 2, 0.0), SelfAttention(4, 4, 0.0)
    for attention in (grouped, full):
        attention.build((None, 32))
    for name in ("query", "key", "value", "attention_output"):
        kernel = getattr(grouped, name).kernel
        values = generator.normal(size=tuple(kernel.shape)).astype("float32")
        kernel.assign(values)
        if name in ("key", "value"):
            values = values.reshape(32, 2, 8).repeat(2, axis=1).reshape(32, 32)
        getattr(full, name).kernel.assign(values)
    x_MD = generator.normal(size=(2 * 5, 32)).astype("float32")
    found, expected = (ops.convert_to_numpy(run(attention, x_MD, 5)) for attention in (grouped, full))
    np.testing.assert_allclose(found, expected, rtol=oracles.EXACT_TOLERANCE, atol=oracles.TOLERANCE)


def test_softmax_is_float32_under_mixed_float16():
    """Scores of 60 000 overflow in float16 when the mask is added there; a fully masked row must stay finite."""
    attention = SelfAttention(4, 2, 0.0, dtype="mixed_float16")
    attention.build((None, 32))
    rope = rope_tables(np.arange(4)[None], inverse_frequencies(8, 10000), 1.0, "float16")
    bias = attention_bias(4, 4, padding_mask=np.array([[0, 0, 1, 1]]))
    x_MD = ops.cast(np.random.default_rng(0).normal(size=(4, 32)), "float16")
    y_MD, cache = attention(x_MD, rope=rope, bias_B1ST=bias)
    assert np.isfinite(ops.convert_to_numpy(y_MD)).all() and cache is None
