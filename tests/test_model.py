"""Build order, and sizes computed without building."""

import subprocess
import sys

import numpy as np
import oracles
import pytest
from keras import ops

from llama_exp import architecture, lora, model
from llama_exp.models import LlamaBackbone

pytestmark = pytest.mark.neutral

KEYS = ("vocabulary_size", "num_layers", "num_query_heads", "hidden_dim", "intermediate_dim", "num_key_value_heads")
PUBLISHED = {
    "keras_hub's test model": ((10, 2, 4, 8, 8, 2), False, 968),
    "llama2_7b": ((32000, 32, 32, 4096, 11008, 32), False, 6738415616),
    "llama3_8b": ((128256, 32, 32, 4096, 14336, 8), False, 8030261248),
    "stories15M": ((32000, 6, 6, 288, 768, 6), True, 15191712),
    "SmolLM2-135M": ((49152, 30, 9, 576, 1536, 3), True, 134515008),
    "Llama 3.2 1B": ((128256, 16, 32, 2048, 8192, 8), True, 1235814400),
    "Llama 3.2 3B": ((128256, 28, 24, 3072, 8192, 8), True, 3212749824),
}
SMALL = dict(zip(KEYS, (40, 2, 4, 32, 48, 2), strict=True)) | {"tie_word_embeddings": False}
FLOAT = {"mode": "none", "quantize_activations": None, "group_size": None}
NO_LORA = {"rank": 0, "alpha": 1.0, "dropout": 0.0, "use_rslora": False, "targets": ["query"]}
LORA = NO_LORA | {"rank": 4, "alpha": 8.0, "targets": ["query", "mlp"]}
IDS = np.random.default_rng(0).integers(0, 40, (2, 8)).astype("int32")


def section(name):
    sizes, tied, _ = PUBLISHED[name]
    return dict(zip(KEYS, sizes, strict=True)) | {"tie_word_embeddings": tied}


def factory(dtype):
    return LlamaBackbone(**SMALL, dtype=dtype)


def build(**overrides):
    arguments = {
        "policy": "float32",
        "preset_dir": None,
        "quantization": FLOAT,
        "lora": NO_LORA,
        "remat": False,
        "seed": 1,
    }
    return model.build(factory, **(arguments | overrides))


@pytest.mark.parametrize("name", PUBLISHED)
def test_formula_equals_published(name):
    assert architecture.count_parameters(section(name)) == PUBLISHED[name][2]


@pytest.mark.parametrize("name", ["keras_hub's test model", "stories15M"])
def test_formula_equals_built(name):
    backbone = LlamaBackbone(**section(name))
    assert backbone.count_params() == architecture.count_parameters(section(name))
    shapes = {path: tuple(linear.kernel.shape) for path, linear in backbone.linear_layers().items()}
    assert shapes == architecture.linear_shapes(section(name))
    assert list(shapes) == list(architecture.linear_shapes(section(name)))


def test_lora_formula():
    section_8b = section("llama3_8b")
    assert model.count_lora_parameters(section_8b, NO_LORA | {"rank": 8, "targets": ["query", "value"]}) == 3407872
    assert model.count_lora_parameters(section_8b, NO_LORA) == 0
    backbone = build(lora=LORA)
    built = sum(int(np.prod(v.shape)) for v in backbone.trainable_variables)
    assert built == model.count_lora_parameters(SMALL, LORA)


def test_sizes_need_no_framework():
    code = (
        "import sys; from llama_exp import lora, model, precision; "
        "print([name for name in ('keras', 'tensorflow', 'jax', 'torch') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_same_seed_same_weights():
    one, same, other = (oracles.arrays(build(seed=seed, lora=LORA)) for seed in (1, 1, 2))
    assert all(np.array_equal(one[path], same[path]) for path in one)
    assert not any(np.array_equal(one[path], other[path]) for path in one if path.endswith("kernel"))


def test_order_is_build_load_adapt(tmp_path):
    """Weights of the preset, frozen, under fresh adapters; with the two steps exchanged loading would fail."""
    source = build(seed=7)
    source.save_to_preset(tmp_path / "preset")
    backbone = build(policy="mixed_bfloat16", preset_dir=tmp_path / "preset", lora=LORA, remat=True)
    assert lora.base_digest(backbone) == lora.base_digest(source)
    assert {v.path for v in backbone.trainable_variables} == set(lora.adapter_variables(backbone))
    assert backbone.lora_arguments == {"rank": 4, "alpha": 8.0, "dropout": 0.0, "use_rslora": False}
    assert backbone.compute_dtype == "bfloat16" and backbone.remat is True
    plain = build(preset_dir=tmp_path / "preset")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(plain({"token_ids": IDS})), ops.convert_to_numpy(source({"token_ids": IDS}))
    )
    assert len(plain.trainable_variables) == len(plain.weights) and plain.remat is False
