"""keras_hub's quantized backbone with our weights, and the modes that the tests go through."""

from __future__ import annotations

import keras
import numpy as np

from llama_exp.architecture import make_quantization
from llama_exp.formats.quantized import KERNEL, dequantize, quantize
from llama_exp.models import LlamaBackbone

# V is odd, groups of 20 do not divide the inputs (32 and 48), heads are shared: nothing fits by accident.
SIZES = {
    "vocabulary_size": 41,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "num_key_value_heads": 2,
}
INT8, INT8_WEIGHTS = {"mode": "int8"}, {"mode": "int8", "quantize_activations": False}
INT8_AS_KERAS = {"mode": "int8", "float_activations": [], "asymmetric_activations": False}
INT4, INT4_COLUMNS = {"mode": "int4", "group_size": 20}, {"mode": "int4", "group_size": 0}
INT4_AS_KERAS = INT4 | {"embeddings": "int4", "int8_layers": []}
GPTQ = INT4 | {"gptq": True}
FLOAT8 = {"mode": "float8"}
MODES = {"int8": INT8, "int8_weight_only": INT8_WEIGHTS, "int4": INT4, "int4_columns": INT4_COLUMNS}
MODES |= {"int8_as_keras": INT8_AS_KERAS, "int4_as_keras": INT4_AS_KERAS, "float8": FLOAT8}
IDS = np.random.default_rng(0).integers(0, 41, (2, 9)).astype("int32")


def make(seed=0, **kwargs):
    """A float backbone with weights of a size at which every layer matters."""
    backbone = LlamaBackbone(**SIZES | kwargs)
    generator = np.random.default_rng(seed)
    for variable in backbone.weights:
        values = generator.normal(size=tuple(variable.shape)) * 0.2
        variable.assign((values + variable.path.endswith("norm/scale")).astype("float32"))
    return backbone


def keras_config(mode):
    """The configuration that Keras' own `quantize` takes for one of `MODES`."""
    if mode["mode"] == "int8":
        if mode.get("quantize_activations") is False:
            return keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)
        return keras.quantizers.Int8QuantizationConfig()
    return keras.quantizers.Int4QuantizationConfig(block_size=mode["group_size"] or None)


def hidden(backbone, ids=IDS):
    outputs = backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32")))


def there_and_back(kernel, mode):
    """The floats that a quantized kernel stands for."""
    quantization = make_quantization(mode)
    return dequantize(quantize(kernel, KERNEL, quantization), kernel.shape, KERNEL, quantization)


def batch():
    """Four rows of eight tokens to learn: each token is followed by the next number; the ends are padding."""
    tokens = (np.arange(9) + np.array([[0], [11], [23], [37]])) % SIZES["vocabulary_size"]
    counted = np.arange(8) < np.array([[8], [5], [7], [2]])
    return {
        "token_ids": tokens[:, :-1].astype("int32"),
        "padding_mask": counted.astype("int32"),
        "labels": tokens[:, 1:].astype("int32"),
        "loss_mask": counted.astype("float32"),
    }
