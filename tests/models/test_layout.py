"""Sharding over four forced host devices gives the same numbers as one device (JAX, in a process of its own)."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from llama_exp.models import LlamaBackbone

SCRIPT = """
import keras, numpy as np
from keras import ops
import oracles
from llama_exp.models import LlamaBackbone

arguments = dict(
    vocabulary_size=40, num_layers=2, num_query_heads=4, hidden_dim=32, intermediate_dim=48, num_key_value_heads=2
)
ids = np.random.default_rng(0).integers(0, 40, (2, 8)).astype("int32")
plain = LlamaBackbone(**arguments)
oracles.randomize(plain)
expected = ops.convert_to_numpy(plain({"token_ids": ids}))

devices = keras.distribution.list_devices("cpu")
assert len(devices) == 4, devices
mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"), devices)
layouts = LlamaBackbone.get_layout_map(mesh)
distribution = keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")
with distribution.scope():
    sharded = LlamaBackbone(**arguments)
    oracles.randomize(sharded)
    sharded.enable_lora(2, targets=["all-linear"])
    found = ops.convert_to_numpy(sharded({"token_ids": ids}))
for variable in sharded.weights:
    print(variable.path, variable.value.addressable_shards[0].data.shape)
np.testing.assert_allclose(found, expected, atol=oracles.TOLERANCE)
print("equal")
"""
SHARDED = {
    "token_embedding/embeddings": "(20, 16)",
    "token_embedding/reverse_embeddings": "(16, 20)",
    "transformer_layer_1/self_attention/query/kernel": "(16, 16)",
    "transformer_layer_1/self_attention/key/kernel": "(16, 8)",
    "transformer_layer_1/self_attention/value/kernel": "(16, 8)",
    "transformer_layer_1/self_attention/attention_output/kernel": "(16, 16)",
    "transformer_layer_1/feedforward_intermediate_dense/kernel": "(16, 24)",
    "transformer_layer_1/feedforward_gate_dense/kernel": "(16, 24)",
    "transformer_layer_1/feedforward_output_dense/kernel": "(24, 16)",
    "transformer_layer_1/self_attention_layernorm/scale": "(32,)",
    "transformer_layer_1/self_attention/query/adapter/lora_a": "(32, 2)",
    "sequence_output_layernorm/scale": "(32,)",
}


@pytest.mark.process
def test_sharded_equals_unsharded():
    tests = Path(__file__).parents[1]
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]),
    }
    result = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.rstrip().endswith("equal"), result.stderr[-3000:]
    shards = {line.split()[0]: line.partition(" ")[2] for line in result.stdout.splitlines()[:-1]}
    assert {path: shards[path] for path in SHARDED} == SHARDED


def test_wrong_meshes_are_named():
    with pytest.raises(ValueError, match="device_mesh='mesh' must be a keras.distribution.DeviceMesh"):
        LlamaBackbone.get_layout_map("mesh")
    mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), ["cpu:0"])
    with pytest.raises(ValueError, match="model_parallel_dim_name='tensor' is no axis of the mesh"):
        LlamaBackbone.get_layout_map(mesh, model_parallel_dim_name="tensor")
