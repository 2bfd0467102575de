"""Build order, and sizes computed without building."""

import subprocess
import sys

import numpy as np
import oracles
import pytest
from keras import ops

from llama_exp import architecture, lora
from llama_exp.architecture import OPTIONS
from llama_exp.errors import ConfigError
from llama_exp.lora import source as lora_source
from llama_exp.models import LlamaBackbone
from llama_exp.models import build as model

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
FLOAT = dict.fromkeys(OPTIONS) | {"mode": "none"}
NO_LORA = {"rank": 0, "alpha": 1.0, "dropout": 0.0, "use_rslora": False, "targets": ["query"], "use_dora": False}
NO_LORA |= {"rank_pattern": {}, "alpha_pattern": {}, "source": None}
LORA = NO_LORA | {"rank": 4, "alpha": 8.0, "targets": ["query", "mlp"]}
IDS = np.random.default_rng(0).integers(0, 40, (2, 8)).astype("int32")


def section(name):
    sizes, tied, _ = PUBLISHED[name]
    return dict(zip(KEYS, sizes, strict=True)) | {"tie_word_embeddings": tied}


def factory(**added):
    return LlamaBackbone(**SMALL, **added)


def build(factory=factory, **overrides):
    arguments = {
        "policy": "float32",
        "preset_dir": None,
        "quantization": FLOAT,
        "lora": NO_LORA,
        "remat": "none",
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
    assert (
        lora_source.count_lora_parameters(section_8b, NO_LORA | {"rank": 8, "targets": ["query", "value"]}) == 3407872
    )
    assert lora_source.count_lora_parameters(section_8b, NO_LORA) == 0
    dora = LORA | {"use_dora": True, "rank_pattern": {"query": 7, "transformer_layer_1/.*gate.*": 2}}
    for lora_section in (LORA, dora):
        backbone = build(lora=lora_section)
        built = sum(int(np.prod(v.shape)) for v in backbone.trainable_variables)
        assert built == lora_source.count_lora_parameters(SMALL, lora_section)
    outputs = 2 * (32 + 48 + 48 + 32)
    assert built == lora_source.count_lora_parameters(SMALL, dora | {"use_dora": False}) + outputs


@pytest.mark.process
def test_sizes_need_no_framework():
    code = (
        "import sys; from llama_exp import lora, precision; from llama_exp.lora import source; "
        "print([name for name in ('keras', 'tensorflow', 'jax', 'torch') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_model_that_does_not_train_is_a_mistake_of_the_configuration():
    def frozen(**added):
        return LlamaBackbone(**SMALL, **added, trainable=False)

    for section_of_lora in (NO_LORA, LORA):
        with pytest.raises(ConfigError, match="nothing would train(.|\n)*0 trainable parameters") as error:
            build(factory=frozen, lora=section_of_lora)
        assert error.value.exit_code == 2


def test_same_seed_same_weights():
    one, same, other = (oracles.arrays(build(seed=seed, lora=LORA)) for seed in (1, 1, 2))
    assert all(np.array_equal(one[path], same[path]) for path in one)
    assert not any(np.array_equal(one[path], other[path]) for path in one if path.endswith("kernel"))


def test_order_is_build_load_adapt(tmp_path):
    """Weights of the preset, frozen, under fresh adapters; with the two steps exchanged loading would fail."""
    source = build(seed=7)
    source.save_to_preset(tmp_path / "preset")
    backbone = build(policy="mixed_bfloat16", preset_dir=tmp_path / "preset", lora=LORA, remat="block")
    assert lora.base_digest(backbone) == lora.base_digest(source)
    assert {v.path for v in backbone.trainable_variables} == set(lora.adapter_variables(backbone))
    assert backbone.lora_arguments == {key: LORA[key] for key in ("rank", "alpha", "dropout", "use_rslora", "use_dora")}
    assert backbone.compute_dtype == "bfloat16" and backbone.remat == "block"
    plain = build(preset_dir=tmp_path / "preset")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(plain({"token_ids": IDS})), ops.convert_to_numpy(source({"token_ids": IDS}))
    )
    assert len(plain.trainable_variables) == len(plain.weights) and plain.remat == "none"


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_random_quantized_weights_are_those_of_the_same_random_floats(mode):
    """Built quantized at once, never drawn into a floating-point model; every input counts the same."""
    from llama_exp.formats.quantized import quantize_checkpoint
    from llama_exp.formats.random_weights import random_checkpoint

    section_of_mode = FLOAT | {"mode": mode}
    ours = build(quantization=section_of_mode, lora=LORA, seed=3)
    source = random_checkpoint(factory().get_config(), 3)
    tensors = quantize_checkpoint(source, architecture.make_quantization(mode)).tensors
    expected = {path: tensor.read(None) for path, tensor in tensors.items()}
    found = {v.path: ops.convert_to_numpy(v.value) for v in ours.weights if "/adapter/" not in v.path}
    assert found.keys() == expected.keys()
    for path, value in found.items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)
