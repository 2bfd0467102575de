"""The mean square of what a matrix is multiplied by, against a NumPy Llama of the tests' own; and that it helps."""

import numpy as np
import pytest
from tiny_configs import TINY_CONFIGS, as_tensors, random_arrays

from llama_exp.architecture import Quantization, linear_shapes
from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.formats.quantized import KERNEL, dequantize, quantize
from llama_exp.quantization import importance

INT4 = Quantization("int4", False, 16)


def checkpoint(name, change=None):
    arrays = random_arrays(TINY_CONFIGS[name])
    for path in change or {}:
        arrays[path] = change[path](arrays[path])
    return Checkpoint("memory", "test", TINY_CONFIGS[name], as_tensors(arrays)), arrays


@pytest.mark.parametrize("name", ["odd_widths", "tied", "llama_3_2"])
def test_every_matrix_has_one(name):
    source, _ = checkpoint(name)
    found = importance.of_inputs(source)
    assert {path: values.shape for path, values in found.items()} == {
        f"{path}/kernel": shape[:1] for path, shape in linear_shapes(TINY_CONFIGS[name]).items()
    }
    for values in found.values():
        assert values.dtype == np.float32 and values.max() == 1 and values.min() > 0
        quarters = 4 * np.log2(values.astype("float64"))  # of a power of two
        np.testing.assert_allclose(quarters, np.rint(quarters), atol=1e-5)


def test_it_is_the_mean_square_of_the_inputs():
    source, arrays = checkpoint("grouped_query")
    config = TINY_CONFIGS["grouped_query"]
    ids = np.random.default_rng(0).integers(0, config["vocabulary_size"], importance.NUM_TOKENS)
    x = arrays["token_embedding/embeddings"][ids].astype("float64")
    normed = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + config["layer_norm_epsilon"])
    normed *= arrays["transformer_layer_0/self_attention_layernorm/scale"]
    expected = np.square(normed).mean(0)
    found = importance.of_inputs(source)["transformer_layer_0/self_attention/query/kernel"]
    np.testing.assert_allclose(found, expected / expected.max(), rtol=0.1)  # an eighth of a power of two
    shared = importance.of_inputs(source)["transformer_layer_0/self_attention/value/kernel"]
    assert np.array_equal(found, shared)


def test_inputs_that_are_never_there_count_a_little_and_broken_weights_count_the_same():
    dead = {"transformer_layer_0/self_attention_layernorm/scale": lambda scale: scale * (np.arange(len(scale)) > 0)}
    found = importance.of_inputs(checkpoint("multi_head", dead)[0])["transformer_layer_0/self_attention/key/kernel"]
    assert 0 < found[0] < 2e-6 and (found[1:] > found[0]).all()
    nothing = {"token_embedding/embeddings": lambda table: table * 0}
    found = importance.of_inputs(checkpoint("multi_head", nothing)[0])
    assert all((values == 1).all() for path, values in found.items() if path.startswith("transformer_layer_0/self"))
    broken = {"token_embedding/embeddings": lambda table: table * np.nan}
    assert all((values == 1).all() for values in importance.of_inputs(checkpoint("multi_head", broken)[0]).values())


def test_an_input_that_counts_is_rounded_best():
    """Of a group whose inputs differ in size, the product is then closer, though the weights are not."""
    generator = np.random.default_rng(1)
    matrix = generator.normal(size=(64, 48)).astype("float32")
    size = np.where(np.arange(64) % 16 == 3, 30.0, 1.0)
    x = generator.normal(size=(200, 64)) * size
    counted = quantize(matrix, KERNEL, INT4, np.square(size).astype("float32") / 900)
    plain = quantize(matrix, KERNEL, INT4)
    errors = [dequantize(parts, matrix.shape, KERNEL, INT4) - matrix for parts in (counted, plain)]
    of_products = [np.square(x @ error).mean() for error in errors]
    assert of_products[0] < 0.3 * of_products[1]
    assert np.square(errors[0]).mean() > np.square(errors[1]).mean()
