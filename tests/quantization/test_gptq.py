"""Kernels rounded over text that the model writes: the same again, and the same in memory as from a file."""

import numpy as np
import pytest
from daily import one_a_day
from tiny_configs import TINY_CONFIGS, as_tensors, random_arrays

from llama_exp.architecture import linear_shapes, make_quantization
from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.quantization import fit_checkpoint, gptq
from llama_exp.reference import layer_outputs, run

INT4 = make_quantization("int4", group_size=16, gptq=True)


def checkpoint(name, change=None):
    arrays = random_arrays(TINY_CONFIGS[name])
    for path in change or {}:
        arrays[path] = change[path](arrays[path])
    return Checkpoint("memory", "test", TINY_CONFIGS[name], as_tensors(arrays))


@pytest.mark.parametrize("name", one_a_day(["odd_widths"], ["tied", "llama_3_2"]))
def test_every_int4_kernel_has_its_integers(name):
    found = gptq.kernels(checkpoint(name), INT4)
    assert list(found) == [
        f"{path}/kernel" for path in linear_shapes(TINY_CONFIGS[name]) if INT4.of(path).mode == "int4"
    ]
    again = gptq.kernels(checkpoint(name), INT4)
    assert all(np.array_equal(part, again[path][key]) for path, parts in found.items() for key, part in parts.items())
    tensors = fit_checkpoint(checkpoint(name), INT4).tensors
    for path, parts in found.items():
        for suffix, part in parts.items():
            for _ in range(2):
                assert np.array_equal(tensors[path + suffix].read(None), part)


def test_tokens_are_the_same_and_possible():
    source = checkpoint("grouped_query")
    found, again = (gptq.written_tokens(source.config, gptq.Int8Weights(source)) for _ in range(2))
    assert found.shape == (gptq.NUM_SEQUENCES, gptq.NUM_TOKENS) and np.array_equal(found, again)
    assert found.min() >= 0 and found.max() < source.config["vocabulary_size"]


def test_tokens_are_drawn_from_the_distribution_of_the_model(monkeypatch):
    monkeypatch.setattr(gptq, "NUM_SEQUENCES", 4000)
    monkeypatch.setattr(gptq, "NUM_TOKENS", 2)
    source = checkpoint("tied")
    first, second = gptq.written_tokens(source.config, gptq.Int8Weights(source)).T
    logits = dict(layer_outputs(source, np.arange(source.config["vocabulary_size"])[:, None]))["logits"][:, 0]
    share = np.exp(logits / gptq.TEMPERATURE)
    expected = (share / share.sum(axis=1, keepdims=True))[first].sum(axis=0)
    counted = np.bincount(second, minlength=len(expected))
    assert (np.abs(counted - expected) < 5 * np.sqrt(expected) + 3).all()


def test_integers_in_memory_compute_what_the_model_does():
    for name in ("tied", "llama_3_1"):
        source, ids = checkpoint(name), np.random.default_rng(0).integers(0, 33, (3, 9))
        found = dict(run(source.config, gptq.Int8Weights(source), ids))
        for layer, expected in layer_outputs(source, ids):
            assert np.linalg.norm(found[layer] - expected) < 0.03 * np.linalg.norm(expected)


def test_every_token_and_block_is_a_step():
    told, source = [], checkpoint("tied")
    gptq.kernels(source, INT4, lambda: told.append(1))
    assert len(told) == gptq.num_steps(source.config) == gptq.NUM_TOKENS - 1 + source.config["num_layers"]


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
