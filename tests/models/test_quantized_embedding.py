"""An integer table: rows, logits and what the loss multiplies are those of the floats that it stands for."""

import numpy as np
import pytest
from keras import ops

from llama_exp.architecture import Quantization
from llama_exp.formats.quantized import REVERSE_TABLE, TABLE, dequantize, quantize
from llama_exp.models.quantized.embedding import QuantizedTokenEmbedding

pytestmark = pytest.mark.neutral

MODES = {
    "int8": Quantization("int8", True),
    "int8_weight_only": Quantization("int8", False),
    "int4": Quantization("int4", False, 5),
    "int4_columns": Quantization("int4", False),
    "float8": Quantization("float8", False),
}
V, D = 11, 9
IDS = np.array([[0, 10, 3], [3, 3, 7]], "int32")
HIDDEN = np.random.default_rng(1).normal(size=(2, 3, D)).astype("float32")


def embedding(mode, tied, policy="float32"):
    layer = QuantizedTokenEmbedding(V, D, tied, mode, dtype=policy, name="token_embedding")
    layer.build()
    generator = np.random.default_rng(0)
    table, output = generator.normal(size=(V, D)).astype("float32"), generator.normal(size=(D, V)).astype("float32")
    variables = {variable.path.rpartition("/")[2]: variable for variable in layer.weights}
    parts = {"embeddings" + suffix: part for suffix, part in quantize(table, TABLE, mode).items()}
    floats = dequantize(quantize(table, TABLE, mode), table.shape, TABLE, mode)
    output_floats = floats.T
    if not tied:
        quantized = quantize(output, REVERSE_TABLE, mode)
        parts |= {"reverse_embeddings" + suffix: part for suffix, part in quantized.items()}
        output_floats = dequantize(quantized, output.shape, REVERSE_TABLE, mode)
    assert set(variables) == set(parts)
    for name, part in parts.items():
        variables[name].assign(part)
    return layer, floats, output_floats


def rounded(x):
    scale = 127 / (np.abs(x).max(-1, keepdims=True) + np.float32(1e-7))
    return np.rint(x * scale) / scale


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_rows_logits_and_operands(mode, tied):
    layer, floats, output_floats = embedding(mode, tied)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(IDS)), floats[IDS], atol=1e-6)
    expected = (rounded(HIDDEN) if mode.quantize_activations else HIDDEN) @ output_floats
    logits = layer.project(HIDDEN)
    assert "float32" in str(logits.dtype)
    np.testing.assert_allclose(ops.convert_to_numpy(logits), expected, atol=3e-6)
    hidden, matrix, vocabulary_axis, trains = layer.product_operands(ops.convert_to_tensor(HIDDEN))
    assert not trains and matrix.shape[vocabulary_axis] == V
    matrix = ops.convert_to_numpy(matrix)
    pieces = ops.convert_to_numpy(hidden) @ (matrix.T if vocabulary_axis == 0 else matrix)
    np.testing.assert_allclose(pieces, expected, atol=3e-6)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_nothing_trains_and_the_layer_describes_itself(mode, tied):
    layer, *_ = embedding(mode, tied)
    assert layer.trainable_weights == [] and (layer.reverse_embeddings is None) == tied
    again = QuantizedTokenEmbedding.from_config(layer.get_config())
    assert (again.quantization, again.tie_word_embeddings, again.vocabulary_size) == (mode, tied, V)


def test_rows_in_the_compute_dtype():
    layer, floats, _ = embedding(MODES["int4"], True, "mixed_bfloat16")
    rows = layer(IDS)
    assert "bfloat16" in str(rows.dtype)
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(rows, "float32")), floats[IDS], atol=0.01)
