"""Keras' own methods on our models: what fits, predicts, saves and copies any Keras model does the same with these."""

import copy
import logging
import pickle

import keras
import numpy as np
import oracles
import pytest
from daily import SLOW_ON_JAX, with_others
from keras import ops

from llama_exp import backend, lora
from llama_exp import tokenizer as tokenizers
from llama_exp.models import LlamaBackbone, LlamaCausalLM

pytestmark = [pytest.mark.neutral, *SLOW_ON_JAX]

TINY = {
    "vocabulary_size": 300,  # the byte tokenizer has fewer ids
    "num_layers": 1,
    "num_query_heads": 4,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "num_key_value_heads": 2,
}
FORMS = {
    "plain": {},
    "dropout": {"dropout": 0.1},
    "bfloat16": {"dtype": "mixed_bfloat16"},  # Keras' Adam never moves variables of pure bfloat16
    "lora": {"adapters": {"rank": 2, "dropout": 0.1}},
    "dora": {
        "adapters": {
            "rank": 4,
            "alpha": 8,
            "use_dora": True,
            "targets": ["all-linear"],
            "rank_pattern": {"query": 2},
            "alpha_pattern": {"value": 3.0},
        }
    },
    "int8-lora": {"mode": "int8", "adapters": {"rank": 2}},
    "int4-lora": {"mode": "int4", "adapters": {"rank": 2, "use_rslora": True}},
    "float8-lora": {"mode": "float8", "adapters": {"rank": 2}},
}


IDS = np.random.default_rng(1).integers(0, 300, (6, 9)).astype("int32")
MASK = np.ones((6, 8), "int32")
MASK[2, 5:] = 0
INPUTS = {"token_ids": IDS[:, :-1], "padding_mask": MASK}
TARGETS = IDS[:, 1:]


def make(form="plain", mode=None, adapters=None, **arguments):
    """A backbone of one of `FORMS`, whose adapters change what it computes."""
    options = {"mode": mode, "adapters": adapters, **arguments, **FORMS[form]}
    mode, adapters = options.pop("mode"), options.pop("adapters")
    backbone = LlamaBackbone(**TINY, **options)
    oracles.randomize(backbone)
    if mode is not None:
        backbone.quantize(mode)
    if adapters is not None:
        backbone.enable_lora(**adapters)
        generator = np.random.default_rng(2)
        for variable in backbone.trainable_variables:
            variable.assign(ops.convert_to_numpy(variable.value) + generator.normal(0, 0.1, variable.shape))
    return backbone


def compiled(model, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, **options)
    return model


def outputs(model, inputs=INPUTS):
    return ops.convert_to_numpy(ops.cast(model(inputs), "float32"))


def cross_entropy(logits, targets, weights=None):
    logits = logits.astype("float64")
    log_sums = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    losses = log_sums - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    return losses.mean() if weights is None else (losses * weights).mean()


def head_on(backbone, inputs=None):
    """A classifier of rows, as KerasHub's guide builds it."""
    hidden = backbone.output if inputs is None else backbone(inputs)
    return keras.Model(backbone.input if inputs is None else inputs, keras.layers.Dense(2)(hidden[:, -1]))


# --- compile, fit, evaluate, predict


@pytest.mark.parametrize("form", with_others(["dropout"], ["int8-lora", "bfloat16", "dora", "float8-lora"]))
def test_fit_evaluate_and_predict_take_a_short_last_batch(form):
    model = compiled(LlamaCausalLM(make(form)))
    tolerance = 0.3 if form == "bfloat16" else oracles.TOLERANCE  # compiled and eager round in another order
    logits = outputs(model)
    np.testing.assert_allclose(model.predict(INPUTS, batch_size=4, verbose=0), logits, rtol=0, atol=tolerance)
    first = model.evaluate(INPUTS, TARGETS, batch_size=4, verbose=0)
    assert first == pytest.approx(cross_entropy(logits, TARGETS), abs=1e-2 if form == "bfloat16" else 1e-4)
    model.fit(INPUTS, TARGETS, batch_size=4, epochs=3, verbose=0)
    assert model.evaluate(INPUTS, TARGETS, batch_size=4, verbose=0) < first


def test_weights_of_samples_count():
    model = compiled(LlamaCausalLM(make()))
    loss = model.evaluate(INPUTS, TARGETS, sample_weight=MASK.astype("float32"), batch_size=6, verbose=0)
    # Keras divides by the number of samples, whatever their weights sum to.
    assert loss == pytest.approx(cross_entropy(outputs(model), TARGETS, MASK), abs=1e-4)


def test_a_generator_of_batches_of_other_lengths():
    model = compiled(LlamaCausalLM(make()))

    def batches():
        for length in (3, 5, 8):
            yield {key: array[:4, :length] for key, array in INPUTS.items()}, TARGETS[:4, :length]

    history = model.fit(batches(), steps_per_epoch=3, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(history).all()


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}])
def test_every_way_to_compile(options):
    model = compiled(LlamaCausalLM(make("int8-lora")), **options)
    first = model.fit(INPUTS, TARGETS, batch_size=2, verbose=0).history["loss"]
    assert model.fit(INPUTS, TARGETS, batch_size=2, verbose=0).history["loss"] < first


def test_what_was_traced_follows_the_model():
    """Keras keeps a compiled `predict`; adapters, their merge and integers must not be missing in it."""
    model = LlamaCausalLM(make())
    plain = model.predict(INPUTS, verbose=0)
    model.backbone.enable_lora(2)
    for variable in model.backbone.trainable_variables:
        variable.assign(np.full(variable.shape, 0.3))
    adapted = model.predict(INPUTS, verbose=0)
    assert np.abs(adapted - plain).max() > 0.1
    np.testing.assert_allclose(adapted, outputs(model), rtol=0, atol=oracles.TOLERANCE)
    lora.merge(model.backbone)
    np.testing.assert_allclose(model.predict(INPUTS, verbose=0), adapted, rtol=0, atol=oracles.TOLERANCE)
    model.quantize("int8")
    integers = model.predict(INPUTS, verbose=0)
    np.testing.assert_allclose(integers, outputs(model), rtol=0, atol=oracles.TOLERANCE)
    assert np.abs(integers - adapted).max() > 1e-4


# --- inputs


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"token_ids": IDS, "attention_mask": IDS}, "'attention_mask', which is not read. Rename it to 'padding_mask'"),
        ({"input_ids": IDS}, "'input_ids', which is not read. Rename it to 'token_ids'"),
        ({"token_ids": IDS, "labels": IDS}, "'labels', which is not read. Leave it out; known: token_ids, "),
        ({"token_ids": IDS, "segments": IDS}, "Rename it to 'segment_ids'"),
        ({"padding_mask": MASK}, "no 'token_ids', only"),
        (IDS, "must be a dict of integers"),
    ],
)
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("kind", ["backbone", "causal_lm"])
def test_inputs_that_nobody_reads_are_refused(kind, symbolic, inputs, expected):
    model = make() if kind == "backbone" else LlamaCausalLM(make())
    if symbolic:
        inputs = keras.tree.map_structure(lambda array: keras.Input(array.shape[1:], dtype="int32"), inputs)
    with pytest.raises(ValueError, match=expected):
        model(inputs)


# --- the functional API


def test_symbolic_inputs_and_outputs():
    backbone = make(dtype="bfloat16")
    model = LlamaCausalLM(backbone)
    assert list(backbone.input) == list(model.input) == ["token_ids", "padding_mask"]
    assert backbone.output.shape == (None, None, 16) and backbone.output.dtype == "bfloat16"
    assert model.output.shape == (None, None, 300) and model.output.dtype == "float32"
    assert backbone.inputs == list(backbone.input.values()) and backbone.outputs == [backbone.output]
    assert backbone.input is backbone.input and backbone.output is backbone.output


@pytest.mark.parametrize("form", with_others(["lora"], ["dropout", "float8-lora"]))
@pytest.mark.parametrize("called", [False, True])
def test_a_head_trains_and_is_saved(form, called, tmp_path):
    inputs = {key: keras.Input((None,), dtype="int32", name=key) for key in INPUTS} if called else None
    head = head_on(make(form, tie_word_embeddings=True), inputs)
    head.compile(keras.optimizers.Adam(1e-2), "mse")
    before = oracles.arrays(head)
    head.fit(INPUTS, np.ones((6, 2)), batch_size=4, verbose=0)
    changed = {path for path, array in oracles.arrays(head).items() if not np.array_equal(array, before[path])}
    assert changed == {variable.path for variable in head.trainable_variables}
    head.save(tmp_path / "head.keras")
    again = keras.models.load_model(tmp_path / "head.keras")
    np.testing.assert_array_equal(outputs(again), outputs(head))
    assert len(again.trainable_variables) == len(head.trainable_variables)


def test_sequential():
    model = keras.Sequential(
        [make(tie_word_embeddings=True), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2)]
    )
    model.compile("adam", "mse")
    model.fit(INPUTS, np.zeros((6, 2)), batch_size=4, verbose=0)
    assert model.predict(INPUTS, batch_size=4, verbose=0).shape == (6, 2)


# --- saved and copied


@pytest.mark.parametrize(
    ("form", "copied"),
    [*((form, "keras") for form in FORMS), ("lora", "pickle"), ("float8-lora", "deepcopy")],  # copies are such files
)
def test_nothing_is_lost_in_keras_own_files_and_copies(form, copied, tmp_path):
    model = LlamaCausalLM(make(form))
    if copied == "keras":
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
    else:
        again = copy.deepcopy(model) if copied == "deepcopy" else pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(outputs(again), outputs(model))
    assert again.get_config() == model.get_config()
    assert again.backbone.lora_arguments == model.backbone.lora_arguments
    assert again.backbone.quantization == model.backbone.quantization
    assert [v.path for v in again.trainable_variables] == [v.path for v in model.trainable_variables]


def test_training_goes_on_after_a_file_as_without_it(tmp_path):
    model = compiled(LlamaCausalLM(make("int8-lora")))
    model.fit(INPUTS, TARGETS, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for one in (model, again):
        one.fit(INPUTS, TARGETS, shuffle=False, verbose=0)
    np.testing.assert_array_equal(outputs(again), outputs(model))


def test_the_tokenizer_is_in_the_file(tmp_path):
    tokenizer = tokenizers.byte(texts=list, preset_folder=None, cache_dir="", fingerprint="")
    model = LlamaCausalLM(make(), tokenizer)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.tokenizer.fingerprint == tokenizer.fingerprint
    assert again.generate("Hi", 8) == model.generate("Hi", 8)


def test_a_whole_model_goes_into_a_keras_file(tmp_path):
    with pytest.raises(ValueError, match=r"goes into a \.keras file"):
        LlamaCausalLM(make()).save(tmp_path / "model.h5")


@pytest.mark.parametrize("form", FORMS)
def test_a_clone_has_the_same_form(form):
    model = LlamaCausalLM(make(form))
    again = keras.models.clone_model(model)
    assert again.get_config() == model.get_config()
    shapes = [[(tuple(v.shape), v.dtype, v.trainable) for v in one.weights] for one in (model, again)]
    assert shapes[0] == shapes[1]


def test_a_description_of_other_adapters_is_refused():
    for adapters in ({"rank": 2}, {"ranks": {"nowhere": 2}}, [1]):
        with pytest.raises(ValueError, match="describes no adapters of this backbone"):
            LlamaBackbone(**TINY, adapters=adapters)


# --- quantize, export, generate, names of KerasHub's


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_the_language_model_quantizes_its_backbone(mode):
    model, backbone = LlamaCausalLM(make()), make()
    model.quantize(mode)
    backbone.quantize(mode)
    assert model.backbone.quantization == backbone.quantization
    np.testing.assert_array_equal(outputs(model), outputs(LlamaCausalLM(backbone)))
    with pytest.raises(ValueError, match="quantized already"):
        model.quantize(mode)


def test_quantize_takes_keras_own_configuration():
    model, backbone = LlamaCausalLM(make()), make()
    model.quantize(config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=None))
    backbone.quantize("int8", quantize_activations=False)
    assert model.backbone.quantization == backbone.quantization


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have")
def test_a_model_around_a_backbone_does_not_quantize_it():
    head = head_on(make())
    with pytest.raises(ValueError, match=r"Quantize the backbone that it belongs to, model.get_layer"):
        head.quantize("int8")
    assert all(variable.dtype == "float32" for variable in head.weights)


def test_what_export_is_told_of_the_sizes():
    signature = [{key: keras.InputSpec(dtype="int32", shape=(None, size)) for key, size in (("a", None), ("b", 7))}]
    expected = {"jax2tf_kwargs": {"polymorphic_shapes": [{"a": "(batch, length)", "b": "(batch, 7)"}]}}
    assert backend.export_options(signature) == (expected if keras.backend.backend() == "jax" else {})


@pytest.mark.parametrize("name", ["save_lora_weights", "load_lora_weights", "preprocessor", "export_to_transformers"])
def test_names_of_keras_hub_say_where_it_is(name):
    assert not hasattr(make(), name)
    with pytest.raises(AttributeError, match="Here it is"):
        getattr(LlamaCausalLM(make()), name)


def test_special_tokens_of_a_prompt_are_text_unless_asked_for(caplog):
    tokenizer = tokenizers.byte(texts=list, preset_folder=None, cache_dir="", fingerprint="")
    model, end = LlamaCausalLM(make(), tokenizer), tokenizer.special_id("<|end_of_text|>")
    begin, text = [tokenizer.begin_id], "Hi<|end_of_text|>"
    with caplog.at_level(logging.WARNING):
        assert model._encode(text).tolist() == begin + tokenizer.encode(text)
    assert "<|end_of_text|>" in caplog.text and "special_tokens=True" in caplog.text
    caplog.clear()
    expected = np.array([*begin, *tokenizer.encode("Hi"), end], np.int32)
    ids = model.generate(expected, 16, stop_token_ids=None)
    assert model.generate(text, 16, stop_token_ids=None, special_tokens=True) == tokenizer.decode(ids.tolist())
    assert model._encode("<|begin_of_text|>" + text, special_tokens=True).tolist() == expected.tolist()
    model.generate("Hi", 16)
    assert caplog.text == ""
