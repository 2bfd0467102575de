"""Quantized backbones as a whole: built, described, loaded, trained through adapters, merged."""

import functools
import json
import logging

import keras
import numpy as np
import oracles
import pytest
from daily import SLOW_ON_JAX, one_a_day, with_others
from keras import ops
from quantized_oracle import (
    FLOAT8,
    GPTQ,
    IDS,
    INT4,
    INT4_AS_KERAS,
    INT4_COLUMNS,
    INT8,
    INT8_AS_KERAS,
    INT8_WEIGHTS,
    MODES,
    SIZES,
    hidden,
    make,
)
from quantized_oracle import batch as example_batch

from llama_exp import backend, lora, quantization
from llama_exp.architecture import (
    INPUT_KEYS,
    LINEAR_NAMES,
    OPTIONS,
    Quantization,
    make_quantization,
    to_section,
)
from llama_exp.errors import ConfigError, InputError
from llama_exp.lora import targets as lora_targets
from llama_exp.models import LlamaBackbone, LlamaCausalLM
from llama_exp.models import build as model
from llama_exp.models.cpu import decoder as cpu_decoder
from llama_exp.models.linear import Linear
from llama_exp.objective import next_token_loss

pytestmark = [pytest.mark.neutral, *SLOW_ON_JAX]

NONE = dict.fromkeys(OPTIONS) | {"mode": "none"}
AS_STORED = {"mode": "preset"}
FLOAT_ACTIVATIONS = OPTIONS["float_activations"].default
NO_LORA = {"rank": 0, "alpha": 4.0, "dropout": 0.0, "use_rslora": False, "targets": ["all-linear"], "source": None}
NO_LORA |= {"use_dora": False, "rank_pattern": {}, "alpha_pattern": {}}
LORA = NO_LORA | {"rank": 2}
# The largest error of a hidden state beside that of the float model, relative to the largest hidden state.
ERRORS = {"int8": 0.09, "int8_weight_only": 0.06, "int4": 0.6, "int4_columns": 0.8}
ERRORS |= {"int8_as_keras": 0.09, "int4_as_keras": 0.7, "float8": 0.2}
KERAS_INT8, OURS_INT8 = Quantization("int8", True), make_quantization("int8")
MIXED = Quantization("int4", False, 20, "int8", int8_layers=("key", "value"))


def section(mode):
    return NONE | mode


def build(preset_dir=None, mode=NONE, lora_section=NO_LORA, policy="float32"):
    return model.build(
        functools.partial(LlamaBackbone, **SIZES),
        policy=policy,
        preset_dir=preset_dir,
        quantization=section(mode),
        lora=lora_section,
        remat="none",
        seed=1,
    )


def arrays(backbone):
    return {v.path: np.array(ops.convert_to_numpy(v.value)) for v in backbone.weights}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", MODES)
def test_quantizing_a_filled_backbone(name, tied):
    backbone = make(tie_word_embeddings=tied)
    before, floats = hidden(backbone), arrays(backbone)
    backbone.layer_norm.scale.trainable = False
    backbone.quantize(**MODES[name])
    after = arrays(backbone)
    error = np.abs(hidden(backbone) - before).max() / np.abs(before).max()
    assert 1e-3 < error < ERRORS[name]
    assert [v.path for v in backbone.weights if v.path in floats] == list(floats)
    assert all(np.array_equal(after[path], floats[path]) for path in floats if path.endswith("norm/scale"))
    trainable = {v.path for v in backbone.trainable_variables}
    assert trainable == {p for p in floats if p.endswith("norm/scale") and not p.startswith("sequence_output")}
    matrices = sum(array.nbytes for path, array in floats.items() if array.ndim == 2)
    stored = sum(array.nbytes for array in after.values())
    assert stored < (0.35 if MODES[name]["mode"] == "int4" else 0.4) * matrices  # scales weigh much in tiny layers
    assert {path for path, array in after.items() if array.ndim == 2 and array.dtype == np.float32} <= {
        path for path in after if path.endswith("_scale")
    }
    assert set(backbone.linear_layers()) == {path.removesuffix("/kernel") for path in floats if path.endswith("kernel")}


@pytest.mark.parametrize("name", MODES)
def test_the_config_rebuilds_it(name):
    backbone = make(dtype="mixed_bfloat16")
    backbone.quantize(**MODES[name])
    config = backbone.get_config()
    again = LlamaBackbone.from_config(config)
    assert again.get_config() == config and again.quantization == backbone.quantization
    assert again.compute_dtype == "bfloat16"
    for variable, source in zip(again.weights, backbone.weights, strict=True):
        assert (variable.path, variable.dtype, variable.trainable) == (source.path, source.dtype, source.trainable)
        variable.assign(source)
    assert np.array_equal(hidden(again), hidden(backbone))


@pytest.mark.parametrize("name", [name for name in MODES if name != "float8"])
def test_saved_and_loaded(name, tmp_path):
    backbone = make()
    backbone.quantize(**MODES[name])
    backbone.save_to_preset(tmp_path / "preset", max_shard_size=1e-5)
    loaded = LlamaBackbone.from_preset(tmp_path / "preset")
    assert loaded.quantization == backbone.quantization
    assert np.array_equal(hidden(loaded), hidden(backbone))


def test_scales_stay_float32_over_bfloat16_weights(tmp_path):
    backbone = make(dtype="bfloat16")
    backbone.quantize("int8")
    dtypes = {v.path.rpartition("/")[2]: v.dtype for v in backbone.weights}
    assert dtypes == {
        "embeddings": "int8",
        "embeddings_scale": "float32",
        "reverse_embeddings": "int8",
        "reverse_embeddings_scale": "float32",
        "kernel": "int8",
        "kernel_scale": "float32",
        "scale": "bfloat16",
    }
    backbone.save_to_preset(tmp_path / "preset")
    assert np.array_equal(hidden(LlamaBackbone.from_preset(tmp_path / "preset", dtype="bfloat16")), hidden(backbone))


@pytest.mark.parametrize(
    "prepare, arguments, message",
    [
        (lambda b: None, {"mode": "gptq"}, "GPTQ"),
        (lambda b: None, {"mode": "int7"}, "int7"),
        (lambda b: None, {"mode": "int8", "group_size": 64}, "only int4 has groups"),
        (lambda b: b.quantize("int8"), {"mode": "int8"}, "quantized already: int8 weights and asymmetric activations"),
        (lambda b: None, {"mode": "int8", "embeddings": "int4"}, "only int4 leaves the embeddings a choice"),
        (lambda b: None, {"mode": "int4", "embeddings": "float8"}, "one of int8, int4"),
        (lambda b: None, {"mode": "int8", "float_activations": ["mlp"]}, "names out of query, key"),
        (lambda b: None, {"mode": "int4", "float_activations": ["query"]}, "only int8 rounds activations"),
        (lambda b: None, {"mode": "int8", "gptq": True}, "only int4 is rounded by GPTQ"),
        (lambda b: b.enable_lora(2), {"mode": "int8"}, "Quantize first, then call enable_lora"),
        (lambda b: None, {"config": keras.quantizers.GPTQConfig(["text"], None)}, "GPTQ"),
        (lambda b: None, {"mode": "float8", "group_size": 64}, "only int4 has groups"),
        (lambda b: None, {"mode": "int8", "int8_layers": ["key"]}, "only int4 may have other layers"),
        (lambda b: None, {"mode": "float8", "embeddings": "int8"}, "only int4 leaves the embeddings a choice"),
        (lambda b: None, {"mode": "float8", "quantize_activations": True}, "only int8 has integer products"),
        (lambda b: None, {"mode": "float8", "float_activations": []}, "only int8 rounds activations"),
        (lambda b: b.quantize("float8"), {"mode": "float8"}, "quantized already: float8 weights"),
        (
            lambda b: None,
            {"config": keras.quantizers.Int8QuantizationConfig(keras.quantizers.AbsMaxQuantizer(axis=0))},
            "standard quantizers",
        ),
        (
            lambda b: b.transformer_layers[0].self_attention.key.kernel.assign(np.full((32, 16), np.nan)),
            {"mode": "int4"},
            "not finite",
        ),
    ],
)
def test_impossible(prepare, arguments, message):
    backbone = make()
    prepare(backbone)
    with pytest.raises(ValueError, match=message):
        backbone.quantize(**arguments)


def test_float16_products_would_overflow():
    backbone = LlamaBackbone(**SIZES, dtype="mixed_float16")
    for mode in ("int8", "float8"):
        with pytest.raises(ValueError, match="float16"):
            backbone.quantize(mode)
    backbone.quantize("int4")
    assert np.isfinite(hidden(backbone)).all()


def test_float8_weights_have_no_preset(tmp_path):
    """Refused before anything is written; what they stand for has one."""
    backbone = make(dtype="mixed_bfloat16")
    backbone.quantize("float8")
    for whole in (backbone, LlamaCausalLM(backbone)):
        with pytest.raises(ValueError, match="cannot hold float8 .*quantization.dequantize"):
            whole.save_to_preset(tmp_path / "preset")
    assert list(tmp_path.iterdir()) == []
    quantization.dequantize(backbone)
    backbone.save_to_preset(tmp_path / "preset")
    loaded = LlamaBackbone.from_preset(tmp_path / "preset", dtype="mixed_bfloat16")
    assert all(np.array_equal(array, arrays(backbone)[path]) for path, array in arrays(loaded).items())


@pytest.mark.parametrize("name", MODES)
def test_quantization_is_an_argument(name):
    """As options or as a `Quantization`: the layers that `quantize` makes, of zeros."""
    expected = make(dtype="mixed_bfloat16")
    expected.quantize(**MODES[name])
    for given in (MODES[name], expected.quantization):
        backbone = LlamaBackbone(**SIZES, dtype="mixed_bfloat16", quantization=given)
        assert backbone.quantization == expected.quantization and backbone.compute_dtype == "bfloat16"
        assert [(v.path, tuple(v.shape), v.dtype) for v in backbone.weights] == [
            (v.path, tuple(v.shape), v.dtype) for v in expected.weights
        ]
        assert not any(arrays(backbone)[path].any() for path in expected.linear_layers() for path in [f"{path}/kernel"])


@pytest.mark.parametrize("name", MODES)
def test_quantization_while_a_preset_is_read(name, tmp_path):
    """The integers of `quantize` on the loaded model."""
    make(7).save_to_preset(tmp_path / "preset")
    expected = make(7)
    expected.quantize(**MODES[name])
    for given in (MODES[name], expected.quantization):
        loaded = LlamaBackbone.from_preset(tmp_path / "preset", quantization=given)
        assert loaded.quantization == expected.quantization
        assert all(np.array_equal(array, arrays(expected)[path]) for path, array in arrays(loaded).items())
    causal_lm = LlamaCausalLM.from_preset(tmp_path / "preset", quantization=MODES[name])
    assert causal_lm.backbone.quantization == expected.quantization


def test_a_quantized_preset_is_not_quantized_in_another_way(tmp_path):
    backbone = make()
    backbone.quantize("int8")
    backbone.save_to_preset(tmp_path / "preset")
    with pytest.raises(InputError, match="is quantized in another way"):
        LlamaBackbone.from_preset(tmp_path / "preset", quantization={"mode": "int4"})
    loaded = LlamaBackbone.from_preset(tmp_path / "preset", quantization=INT8_AS_KERAS)
    assert loaded.quantization == KERAS_INT8 and np.array_equal(
        *(arrays(one)["transformer_layer_0/self_attention/query/kernel"] for one in (loaded, backbone))
    )


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ("int8", "must be options such as"),
        ({"mode": "int5"}, "int5"),
        ({"mode": "int8", "group_size": 32}, "group"),
        ({"mode": "int8", "size": 32}, "size"),
        ({"group_size": 32}, "mode"),
    ],
)
def test_impossible_quantizations_are_named(quantization, expected):
    with pytest.raises(ValueError, match=f"quantization.*{expected}"):
        LlamaBackbone(**SIZES, quantization=quantization)


def test_the_keras_file_of_a_quantized_backbone(tmp_path):
    backbone = make()
    backbone.quantize("int4", group_size=20)
    backbone.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_config() == backbone.get_config()
    assert np.array_equal(hidden(again), hidden(backbone))


def test_a_config_is_plain_data():
    backbone = make()
    backbone.quantize("int4", group_size=20)
    config = backbone.get_config()
    assert json.loads(json.dumps(config)) == config
    assert make().get_config()["quantization"] is None


@pytest.mark.parametrize("mode", [*MODES.values(), GPTQ, {"mode": "none"}])
def test_a_section_states_a_quantization_in_full(mode):
    quantization = make_quantization(**mode)
    section = to_section(quantization)
    assert make_quantization(**section) == quantization and section.keys() == set(NONE)


@pytest.mark.parametrize(
    "dtype",
    [
        "int8_from_float32",
        "float8_e4m3fn",
        "int8",
        {"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8", "source_name": None}},
        {"class_name": "DTypePolicyMap", "config": {"policy_map": {}, "default_policy": None}},
        keras.dtype_policies.QuantizedDTypePolicy("int8", "float32"),
        keras.dtype_policies.DTypePolicyMap(),
    ],
    ids=range(7),
)
def test_policies_of_quantized_weights_are_for_files(dtype, tmp_path):
    make(num_layers=1).save_to_preset(tmp_path / "preset")
    for build_one in (lambda: LlamaBackbone(**SIZES, dtype=dtype), lambda: from_preset(tmp_path, dtype=dtype)):
        with pytest.raises(ValueError, match="(?s)is no floating-point policy.*quantization={'mode': 'int8'}"):
            build_one()


def from_preset(folder, **arguments):
    return LlamaBackbone.from_preset(folder / "preset", **arguments)


@pytest.mark.parametrize("gptq", one_a_day([False], [True]))
@pytest.mark.parametrize("names", one_a_day([None, []], [["query", "feedforward_output_dense"]]))
def test_embeddings_and_some_layers_stay_int8_under_int4(names, gptq):
    """Byte for byte what int8 makes of them."""
    backbone, other = make(), make()
    backbone.quantize("int4", group_size=20, int8_layers=names, gptq=gptq)
    other.quantize("int8")
    ours, theirs = arrays(backbone), arrays(other)
    names = {"token_embedding", *(OPTIONS["int8_layers"].default if names is None else names)}
    same = [path for path in theirs if path.split("/")[-2] in names]
    assert len(same) == 4 + 2 * 2 * (len(names) - 1) and all(np.array_equal(ours[path], theirs[path]) for path in same)
    assert not any(path.removesuffix("_zero") in same for path in ours if path.endswith("_zero"))
    layers = [backbone.token_embedding, *backbone.linear_layers().values()]
    assert {layer.name for layer in layers if layer.quantization == Quantization("int8", False)} == names
    assert {layer.quantization for layer in layers} <= {Quantization("int8", False), Quantization("int4", False, 20)}


def test_which_inputs_are_rounded():
    backbone = make()
    backbone.quantize("int8")
    rounded = {path.rpartition("/")[2] for path, linear in backbone.linear_layers().items() if _rounds(linear)}
    assert rounded == set(lora_targets.GROUPS["all-linear"]) - set(FLOAT_ACTIVATIONS)
    assert _rounds(backbone.token_embedding) == ("token_embedding" not in FLOAT_ACTIVATIONS)
    assert set(LINEAR_NAMES) == set(lora_targets.GROUPS["all-linear"])


def _rounds(layer):
    return layer.quantization.quantize_activations


@pytest.mark.parametrize(
    "config, expected",
    [
        (keras.quantizers.Int8QuantizationConfig(), make_quantization("int8")),
        (keras.quantizers.Int8QuantizationConfig(activation_quantizer=None), make_quantization("int8", False)),
        (keras.quantizers.Int4QuantizationConfig(), make_quantization("int4")),
        (keras.quantizers.Int4QuantizationConfig(block_size=8), make_quantization("int4", group_size=8)),
        (keras.quantizers.Int4QuantizationConfig(block_size=None), make_quantization("int4", group_size=0)),
        (keras.quantizers.Float8QuantizationConfig(), make_quantization("float8")),
    ],
)
def test_keras_configurations_state_options(config, expected):
    backbone = make()
    backbone.quantize(config=config)
    assert backbone.quantization == expected


# --- which quantization a model has


@pytest.mark.parametrize(
    "wanted, stored, expected",
    [
        ({}, None, None),
        (AS_STORED, None, None),
        (INT8, None, OURS_INT8),
        (AS_STORED, KERAS_INT8, KERAS_INT8),
        (INT8 | {"quantize_activations": True}, KERAS_INT8, OURS_INT8),
        (INT8_AS_KERAS, OURS_INT8, KERAS_INT8),
        (AS_STORED, Quantization("int4", False, 20), Quantization("int4", False, 20)),
        (AS_STORED, MIXED, MIXED),
        (INT8, Quantization("int8", False), OURS_INT8),
        (INT8_WEIGHTS, Quantization("int8", True), Quantization("int8", False)),
        (INT4_AS_KERAS, Quantization("int4", False, 20), Quantization("int4", False, 20)),
        (INT4 | {"int8_layers": []}, Quantization("int4", False, 20, "int8"), Quantization("int4", False, 20, "int8")),
        (INT4 | {"int8_layers": ["value", "key"]}, MIXED, MIXED),
        (INT4, MIXED, MIXED),
        (FLOAT8, None, Quantization("float8", False)),
    ],
)
def test_a_quantized_preset_decides(wanted, stored, expected):
    assert quantization.choose(section(wanted), stored, "preset") == expected


@pytest.mark.parametrize(
    "wanted, stored, key",
    [
        ({}, Quantization("int4", False, 20), "quantization.mode"),
        ({}, KERAS_INT8, "quantization.mode"),
        (INT8, Quantization("int4", False, 20), "quantization.mode"),
        (INT4, Quantization("int8", True), "quantization.mode"),
        (FLOAT8, Quantization("int8", False), "quantization.mode"),
        (INT4, Quantization("int4", False, 64), "quantization.group_size"),
        (INT4_COLUMNS, Quantization("int4", False, 64), "quantization.group_size"),
        (INT4_AS_KERAS, Quantization("int4", False, 20, "int8"), "quantization.embeddings"),
        (INT4 | {"embeddings": "int8"}, Quantization("int4", False, 20), "quantization.embeddings"),
        (GPTQ, Quantization("int4", False, 20, "int8"), "quantization.gptq"),
        (INT4 | {"int8_layers": []}, MIXED, "quantization.int8_layers"),
        (INT4, Quantization("int4", False, 20), "quantization.embeddings"),
        (INT4, Quantization("int4", False, 20, "int8"), "quantization.int8_layers"),
    ],
)
def test_a_contradiction_names_both(wanted, stored, key):
    with pytest.raises(InputError) as caught:
        quantization.choose(section(wanted), stored, "some/preset")
    (problem,) = caught.value.problems
    assert problem.where == key
    assert quantization.describe(stored) in problem.found
    assert quantization.describe(make_quantization(**section(wanted))) in problem.found


# --- build, load, quantize, LoRA


@pytest.fixture
def float_preset(tmp_path):
    make(seed=7).save_to_preset(tmp_path / "float")
    return tmp_path / "float"


@pytest.mark.parametrize("mode", one_a_day(MODES.values(), [GPTQ]), ids=[*MODES, "gptq"])
def test_order_is_build_load_quantize_adapt(mode, float_preset):
    expected = LlamaBackbone.from_preset(float_preset)
    expected.quantize(**mode)
    built = build(float_preset, mode, LORA)
    own = lora.adapter_variables(built)
    assert {v.path for v in built.trainable_variables} == set(own)
    weights = arrays(expected)
    assert {path: array.tobytes() for path, array in arrays(built).items() if path not in own} == {
        path: array.tobytes() for path, array in weights.items()
    }
    assert np.array_equal(hidden(built), hidden(expected))  # B is zero


@pytest.mark.slow  # test_gptq.py has the parts, in a fourth of the time
def test_gptq_gives_other_integers_of_the_same_function(float_preset):
    kernels, outputs = [], []
    for options in ({}, {"gptq": True}):
        backbone = LlamaBackbone.from_preset(float_preset)
        backbone.quantize(**INT4, **options)
        kernels.append(ops.convert_to_numpy(backbone.transformer_layers[0].self_attention.query.kernel))
        outputs.append(hidden(backbone))
    assert not np.array_equal(*kernels)
    exact = hidden(LlamaBackbone.from_preset(float_preset))
    errors = [np.linalg.norm(output - exact) / np.linalg.norm(exact) for output in outputs]
    assert errors[1] < 1.2 * errors[0] < 0.5


def test_no_float_layer_is_ever_made(float_preset, monkeypatch):
    def refuse(self, input_shape):
        raise AssertionError("a floating-point kernel was made")

    monkeypatch.setattr(Linear, "build", refuse)
    assert build(float_preset, INT8, LORA).quantization == OURS_INT8


def test_a_quantized_preset_is_taken_as_it_is(float_preset, tmp_path, caplog):
    source = build(float_preset)
    source.quantize(**INT4)
    source.save_to_preset(tmp_path / "int4")
    with caplog.at_level(logging.INFO):
        built = build(tmp_path / "int4", AS_STORED, LORA)
    assert built.quantization == source.quantization
    assert "quantization: int4 weights, a scale per 20 inputs, int8 embeddings, int8 key and value" in caplog.text
    for other in (INT8, NONE):
        with pytest.raises(InputError, match="quantized in another way"):
            build(tmp_path / "int4", other, LORA)
    with pytest.raises(ConfigError, match="adapters on top of them"):
        build(tmp_path / "int4", AS_STORED, NO_LORA)


def test_random_weights_can_be_quantized_too():
    built = build(None, INT8, LORA)
    assert built.quantization == OURS_INT8 and len(built.trainable_variables) == 2 * 7 * 2
    with pytest.raises(ConfigError, match="lora.rank"):
        build(None, INT8)


# --- QLoRA


def loss_of(backbone, batch, training):
    outputs = backbone({key: batch[key] for key in ("token_ids", "padding_mask")})
    total, weight = next_token_loss(
        backbone.token_embedding, outputs, batch["labels"], batch["loss_mask"], chunk_tokens=16, training=training
    )
    return total / weight


def train(backbone, steps=12):
    """Losses of Adam on one batch, jitted as the backend does by default."""
    batch = example_batch()
    optimizer = keras.optimizers.Adam(0.02)
    variables = backbone.trainable_variables
    optimizer.build(variables)

    def step(batch):
        (loss, _), gradients = backend.value_and_gradients(lambda: (loss_of(backbone, batch, True), ()), variables)
        backend.apply_gradients(optimizer, gradients, variables)
        return loss

    others = [v for v in backbone.weights if not v.trainable]
    call = backend.compiled(step, others, [*variables, *optimizer.variables], keras.backend.backend() == "jax")
    return [float(ops.convert_to_numpy(call(batch))) for _ in range(steps)]


@pytest.mark.parametrize(
    ("policy", "use_dora"), with_others([("float32", False)], [("mixed_bfloat16", False), ("float32", True)])
)
@pytest.mark.parametrize("name", MODES)
def test_adapters_train_and_what_is_quantized_stays(name, policy, use_dora):
    backbone = make(dtype=policy)
    backbone.quantize(**MODES[name])
    backbone.enable_lora(4, targets=["all-linear"], use_dora=use_dora)
    before, digest = arrays(backbone), lora.base_digest(backbone)
    losses = train(backbone)
    assert losses[-1] < 0.7 * losses[0] and np.isfinite(losses).all()
    assert lora.base_digest(backbone) == digest
    own = lora.adapter_variables(backbone)
    after = arrays(backbone)
    assert all(np.array_equal(before[path], after[path]) for path in before if path not in own)
    assert len(own) == (42 if use_dora else 28)
    assert not any(np.array_equal(before[path], after[path]) for path in own)


def test_dropout_of_adapters_on_a_quantized_backbone():
    backbone = make()
    backbone.quantize("int8")
    assert backbone.seed_generator is None
    backbone.enable_lora(2, dropout=0.5)
    for variable in backbone.trainable_variables:
        variable.assign(np.full(tuple(variable.shape), 0.3))
    inputs = {"token_ids": IDS}
    one, other = (ops.convert_to_numpy(backbone(inputs, training=True)) for _ in range(2))
    assert not np.array_equal(one, other)


def trained(name, **arguments):
    backbone = make()
    backbone.quantize(**MODES[name])
    backbone.enable_lora(2, alpha=4.0, targets=["query", "mlp"], **arguments)
    generator = np.random.default_rng(5)
    for variable in backbone.trainable_variables:
        variable.assign(generator.normal(size=tuple(variable.shape)) * 0.1)
    return backbone


@pytest.mark.parametrize("use_dora", one_a_day([True], [False]))
@pytest.mark.parametrize("name", MODES)
def test_merging_gives_a_float_model_of_the_same_function(name, use_dora):
    backbone = trained(name, use_dora=use_dora, rank_pattern={"query": 3})
    expected = hidden(backbone)
    floats = make().get_config()
    lora.merge(backbone)
    assert backbone.quantization is None and backbone.get_config() | {"name": ""} == floats | {"name": ""}
    assert len(backbone.trainable_variables) == len(backbone.weights) == len(make().weights)
    assert backbone.lora_arguments is None and not lora.adapters(backbone)
    error = np.abs(hidden(backbone) - expected).max() / np.abs(expected).max()
    if name in ("int8", "int8_as_keras"):  # whose rounding of activations is gone
        assert error < 0.09
    else:
        assert error < oracles.EXACT_TOLERANCE


def test_adapters_know_their_quantized_base(tmp_path, caplog):
    backbone = trained("int8")
    expected = hidden(backbone)
    lora.save_adapter(backbone, tmp_path / "adapter")
    again = make()
    again.quantize(**INT8)
    lora.load_adapter(again, tmp_path / "adapter")
    assert np.array_equal(hidden(again), expected)
    assert caplog.text == ""
    lora.load_adapter(make(), tmp_path / "adapter")
    assert "was trained on int8 weights; the base here is float32" in caplog.text
    other = make(seed=9)
    other.quantize(**INT8)
    with pytest.raises(InputError, match="other base weights"):
        lora.load_adapter(other, tmp_path / "adapter")


@pytest.mark.parametrize("name", MODES)
def test_the_training_loss_is_that_of_the_logits(name):
    backbone = make()
    backbone.quantize(**MODES[name])
    batch = example_batch()
    inputs = {key: batch[key] for key in INPUT_KEYS if key in batch}
    logits = ops.convert_to_numpy(backbone.token_embedding.project(backbone(inputs))).astype("float64")
    logits -= logits.max(-1, keepdims=True)
    losses = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, batch["labels"][..., None], -1)[..., 0]
    expected = (losses * batch["loss_mask"]).sum() / batch["loss_mask"].sum()
    call = backend.compiled(lambda batch: loss_of(backbone, batch, False), backbone.weights, [], True)
    assert float(ops.convert_to_numpy(call(batch))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", one_a_day(["int4"], ["int8", "float8"]))
def test_generation_with_a_cache_equals_whole_sequences(name):
    backbone = make()
    backbone.quantize(**MODES[name])
    ids = np.array(LlamaCausalLM(backbone).generate([IDS[0, :4]], max_length=9))[0]
    expected = IDS[0, :4].tolist()
    while len(expected) < 9:
        row = np.pad(np.array(expected, "int32"), (0, 9 - len(expected)))  # of one length: compiled once
        logits = backbone.token_embedding.project(backbone({"token_ids": row[None]}))
        expected.append(int(ops.convert_to_numpy(logits)[0, len(expected) - 1].argmax()))
    assert ids.tolist() == expected


@pytest.mark.slow
def test_float8_is_decoded_for_many_rows_too():
    """More of them than the kernels for a CPU serve: one compiled function."""
    backbone = make()
    backbone.quantize("float8")
    model, prompts = LlamaCausalLM(backbone), [row[:4] for row in IDS]
    at_once = model.generate(prompts * (cpu_decoder.MOST_ROWS // 2 + 1), max_length=9)
    for found, prompt in zip(at_once, prompts * (len(at_once) // 2), strict=True):
        assert np.array_equal(found, np.array(model.generate([prompt], max_length=9))[0])
