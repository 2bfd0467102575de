"""Kernels rounded over text that the model writes: the same again, and the same in memory as from a file."""

import numpy as np
import pytest
from tiny_configs import TINY_CONFIGS, as_tensors, random_arrays

from llama_exp import gptq
from llama_exp.architecture import linear_shapes, make_quantization
from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.quantization import fitted
from llama_exp.reference import layer_outputs

INT4 = make_quantization("int4", group_size=16, gptq=True)


def checkpoint(name, change=None):
    arrays = random_arrays(TINY_CONFIGS[name])
    for path in change or {}:
        arrays[path] = change[path](arrays[path])
    return Checkpoint("memory", "test", TINY_CONFIGS[name], as_tensors(arrays))


@pytest.mark.parametrize("name", ["odd_widths", "tied", "llama_3_2"])
def test_every_int4_kernel_has_its_integers(name):
    found = gptq.kernels(checkpoint(name), INT4)
    assert list(found) == [
        f"{path}/kernel" for path in linear_shapes(TINY_CONFIGS[name]) if INT4.of(path).mode == "int4"
    ]
    again = gptq.kernels(checkpoint(name), INT4)
    assert all(np.array_equal(part, again[path][key]) for path, parts in found.items() for key, part in parts.items())
    tensors = fitted(checkpoint(name), INT4).tensors
    for path, parts in found.items():
        for suffix, part in parts.items():
            for _ in range(2):
                assert np.array_equal(tensors[path + suffix].read(None), part)


def test_tokens_are_the_same_and_possible():
    found = gptq.written_tokens(checkpoint("grouped_query"))
    assert found.shape == (gptq.NUM_SEQUENCES, gptq.NUM_TOKENS)
    assert np.array_equal(found, gptq.written_tokens(checkpoint("grouped_query")))
    assert found.min() >= 0 and found.max() < TINY_CONFIGS["grouped_query"]["vocabulary_size"]


def test_keys_and_values_of_before_change_nothing():
    source, ids = checkpoint("llama_3_1"), np.random.default_rng(0).integers(0, 48, (3, 9))
    whole, past = dict(layer_outputs(source, ids)), {}
    parts = [dict(layer_outputs(source, ids[:, piece], past=past)) for piece in (slice(0, 4), slice(4, 9))]
    for layer in whole:
        joined = np.concatenate([part[layer] for part in parts], axis=1)
        np.testing.assert_allclose(joined, whole[layer], rtol=1e-9, atol=1e-9)


def test_second_moments_are_those_of_the_inputs():
    x = np.random.default_rng(0).normal(size=(4, 31, 12)) * np.linspace(0.5, 3, 12)
    weight = np.ones(31)
    weight[0] = 2  # a sixteenth of 32
    expected = np.einsum("bsi,bsj,s->ij", x, x, weight)
    found = gptq.second_moments(x)
    np.testing.assert_allclose(found, expected / np.diag(expected).max(), atol=0.07)
    assert np.array_equal(found, found.T) and np.diag(found).max() == 1
    assert np.array_equal(found, gptq.second_moments(x[::-1]))  # another order of summation
    x[..., 5] = 0
    assert np.isfinite(gptq.second_moments(x)).all() and (gptq.second_moments(x)[5] == 0).all()
    for nothing in (x * 0, x * np.nan):
        assert np.array_equal(gptq.second_moments(nothing), np.eye(12))


def test_weights_that_are_not_finite_are_told():
    broken = {"transformer_layer_1/self_attention/query/kernel": lambda kernel: kernel * np.nan}
    with pytest.raises(ValueError, match="not finite"):
        gptq.kernels(checkpoint("multi_head", broken), INT4)
