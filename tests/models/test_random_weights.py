"""First values: by seed and path alone, the same numbers on every backend."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import initial_models
import keras
import numpy as np
import pytest
from initial_models import KINDS, LORA, SIZES, built, values
from keras import ops

from llama_exp.architecture.draws import draw_normal, draw_uniform
from llama_exp.formats.random_weights import random_checkpoint
from llama_exp.models import LlamaBackbone
from llama_exp.models.linear import Linear

TESTS = Path(__file__).parents[1]
neutral = pytest.mark.neutral
# SHA-256, first 16 digits, of the float32 values for seed 3. If a release of NumPy changes its streams, this fails:
# every run then begins elsewhere, which the changelog must say.
GOLDEN = {
    "token_embedding/embeddings": "8d644031413d6772",
    "token_embedding/reverse_embeddings": "583cbcd59234039e",
    "transformer_layer_0/self_attention/query/kernel": "fdff43edf1488282",
    "transformer_layer_1/feedforward_output_dense/kernel": "4a6310fde7add126",
    "transformer_layer_1/feedforward_output_dense/adapter/lora_a": "e5d2d4a65e8501f1",
}


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array, "<f4").tobytes()).hexdigest()[:16]


@pytest.mark.process
def test_tensorflow_and_jax_begin_with_the_same_numbers(tmp_path):
    """Every kind of model, one process per backend: the largest difference is 0."""
    here, other = keras.backend.backend(), {"tensorflow": "jax", "jax": "tensorflow"}[keras.backend.backend()]
    environment = os.environ | {"KERAS_BACKEND": other, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    command = [sys.executable, initial_models.__file__, str(tmp_path / "theirs.npz")]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0 and finished.stdout.split()[-1] == other != here, finished.stderr[-3000:]
    ours = {f"{kind}: {path}": array for kind, how in KINDS.items() for path, array in values(built(*how)).items()}
    theirs = np.load(tmp_path / "theirs.npz")
    assert set(theirs.files) == set(ours)
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype, name
        difference = np.abs(array.astype("float64") - theirs[name].astype("float64")).max()
        assert difference == 0, f"{name}: {difference}"


@neutral
def test_the_numbers_are_those_of_the_golden_digests():
    found = values(built(lora=LORA))
    assert {path: digest(found[path]) for path in GOLDEN} == GOLDEN


@neutral
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "mixed_bfloat16 LoRA"])
def test_every_variable_is_drawn_by_its_path_and_rounded(kind):
    """N(0, 0.02^2), tables N(0, 0.01^2), A from U(-1/sqrt(I), 1/sqrt(I)); norms are 1, B is 0."""
    found, policy = values(built(*KINDS[kind])), KINDS[kind][0]
    assert len(found) == 2 + 2 * 9 + 1 + (2 * 2 * 7 if "LoRA" in kind else 0)
    for path, array in found.items():
        if path.endswith("scale"):
            expected = np.ones(array.shape, "float32")
        elif path.endswith("lora_b"):
            expected = np.zeros(array.shape, "float32")
        elif path.endswith("lora_a"):
            expected = draw_uniform(3, path, array.shape, array.shape[0] ** -0.5)
        else:
            expected = draw_normal(3, path, array.shape, 0.01 if "embeddings" in path else 0.02)
        if policy == "bfloat16":
            bits = expected.view("uint32").astype("uint64")  # round to nearest even, written out
            expected = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype("uint32").view("float32")
        np.testing.assert_array_equal(array, expected, err_msg=path)


def test_draws_have_their_distributions():
    normal, uniform = draw_normal(0, "a", (1000, 500), 0.02), draw_uniform(0, "a", (1000, 500), 0.25)
    assert normal.dtype == uniform.dtype == np.float32
    count = normal.size
    standard = normal.astype("float64") / 0.02
    # Five standard errors of mean, variance, skewness and kurtosis.
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((standard**power).mean() - moment) < 5 * np.sqrt(variance / count), power
    assert -0.25 <= uniform.min() < -0.2499 and 0.2499 < uniform.max() <= 0.25
    shares, _ = np.histogram(uniform, 20, (-0.25, 0.25))
    assert np.abs(shares - count / 20).max() < 5 * np.sqrt(count / 20)
    assert abs(np.corrcoef(normal[:, :-1].ravel(), normal[:, 1:].ravel())[0, 1]) < 5 / np.sqrt(count)


def test_paths_and_seeds_have_streams_of_their_own():
    draws = [draw_normal(seed, path, (10000,), 1.0) for seed in (0, 1, 2**32 - 1) for path in ("a", "b", "a/b")]
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlations).max() < 0.05


@neutral
def test_other_layers_change_no_values():
    """Neither more blocks, tied embeddings or adapters, nor the order in which layers are built."""
    small = values(built())
    changed = values(built(num_layers=3, tie_word_embeddings=True, lora=LORA))
    shared = small.keys() & changed.keys()
    assert small.keys() - shared == {"token_embedding/reverse_embeddings"}
    for path in shared:
        np.testing.assert_array_equal(changed[path], small[path], err_msg=path)
    late = Linear(32, name="query", seed=3)
    with keras.name_scope("transformer_layer_1"), keras.name_scope("self_attention"):
        late.build((None, 32))
    expected = small["transformer_layer_1/self_attention/query/kernel"]
    np.testing.assert_array_equal(ops.convert_to_numpy(late.kernel.value), expected)


@neutral
def test_standard_deviations_are_arguments():
    one, other = values(built()), values(built(initializer_range=0.04, embedding_initializer_range=0.0025))
    for path, array in one.items():
        factor = 0.25 if "embeddings" in path else 1 if path.endswith("scale") else 2
        np.testing.assert_array_equal(other[path], array * np.float32(factor), err_msg=path)
    backbone = LlamaBackbone(**SIZES, initializer_range=0.5, embedding_initializer_range=0.25, seed=11)
    config = backbone.get_config()
    assert (config["initializer_range"], config["embedding_initializer_range"], config["seed"]) == (0.5, 0.25, 11)
    again = LlamaBackbone.from_config(config)
    assert again.get_config() == config
    for path, array in values(again).items():
        np.testing.assert_array_equal(array, values(backbone)[path])
    for key in ("initializer_range", "embedding_initializer_range"):
        for value in (0, -0.1, float("nan")):
            with pytest.raises(ValueError, match=rf"\({key}={value}\): give a number above 0"):
                LlamaBackbone(**SIZES, **{key: value})


@neutral
def test_without_a_seed_keras_decides():
    def kernel():
        return values(LlamaBackbone(**SIZES))["transformer_layer_0/self_attention/query/kernel"]

    assert not np.array_equal(kernel(), kernel())
    keras.utils.set_random_seed(7)
    first, second = kernel(), kernel()
    assert not np.array_equal(first, second)
    keras.utils.set_random_seed(7)
    np.testing.assert_array_equal(kernel(), first)


@neutral
def test_adapters_have_the_seed_of_their_backbone():
    def adapter_values(seed):
        backbone = LlamaBackbone(**SIZES, seed=seed)
        backbone.enable_lora(2)
        return {path: array for path, array in values(backbone).items() if path.endswith("lora_a")}

    one, same, other = adapter_values(1), adapter_values(1), adapter_values(2)
    assert len(one) == 4
    for path in one:
        np.testing.assert_array_equal(one[path], same[path])
        assert not np.array_equal(one[path], other[path])


@neutral
def test_as_a_checkpoint_they_are_the_same():
    backbone = LlamaBackbone(**SIZES, seed=5, initializer_range=0.03, embedding_initializer_range=0.05)
    tensors = random_checkpoint(backbone.get_config(), backbone.seed).tensors
    found = values(backbone)
    assert tensors.keys() == found.keys()
    for path, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.read(None), found[path], err_msg=path)
