"""KerasHub's contract for a Backbone and a CausalLM, as calls that run on its Llama and on ours.

Each row is one thing that KerasHub tests or documents. Its harness, `keras_hub/src/tests/test_case.py`, is installed
with it and runs unchanged. The test modules of its Llama are not, so that what they check is stated here again.

A row's outcome is found by running it:

    same      the call works on both
    better    it works here, and fails there
    refused   it works there, and raises here; the row says why, or what to do instead

Shape letters: B batch, S positions.
"""

from __future__ import annotations

import copy
import functools
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from llama_exp import lora
from llama_exp import models as ours
from llama_exp import tokenizer as tokenizers

SIZES = {
    "vocabulary_size": 10,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 8,
}
INPUTS = {"token_ids": np.ones((2, 5), "int32"), "padding_mask": np.ones((2, 5), "int32")}
ROWS = np.random.default_rng(0).integers(0, 10, (5, 7)).astype("int32")
X, Y = {"token_ids": ROWS[:, :-1], "padding_mask": np.ones((5, 6), "int32")}, ROWS[:, 1:]
TEXT = "Llamas eat"


class Library(NamedTuple):
    """One of the two: its classes, and a model with a tokenizer, the same for both."""

    name: str
    backbone_class: type
    causal_lm_class: type
    folder: Path

    def backbone(self, **arguments):
        return self.backbone_class(**SIZES, **arguments)

    def causal_lm(self, **arguments):
        backbone = self.backbone(**arguments)
        return self.causal_lm_class(backbone) if self.name == "ours" else self.causal_lm_class(backbone, None)

    def with_text(self):
        return self.causal_lm_class.from_preset(str(self.folder))


class Row(NamedTuple):
    """What is asked; where KerasHub asks it; the call, on a `Library`; and what a reader should know."""

    what: str
    source: str
    check: Callable
    note: str = ""


def libraries(folder: Path) -> tuple[Library, Library]:
    """Ours and KerasHub's; `folder` gets the preset that both read."""
    import keras_hub

    tokenizer = tokenizers.byte(texts=list, preset_folder=None, cache_dir="", fingerprint="")
    backbone = ours.LlamaBackbone(**SIZES | {"vocabulary_size": tokenizer.vocabulary_size})
    ours.LlamaCausalLM(backbone, tokenizer).save_to_preset(folder)
    theirs = keras_hub.models
    return (
        Library("ours", ours.LlamaBackbone, ours.LlamaCausalLM, folder),
        Library("KerasHub", theirs.Llama3Backbone, theirs.Llama3CausalLM, folder),
    )


@functools.cache
def harness():
    """KerasHub's own test case."""
    try:
        import grain  # noqa: F401 - the harness imports it, for preprocessing
    except ImportError:
        sys.modules["grain"] = types.ModuleType("grain")
    from keras_hub.src.tests.test_case import TestCase

    return type("Harness", (TestCase,), {"runTest": lambda self: None})()


def outputs(model, inputs=X):
    return keras.ops.convert_to_numpy(keras.ops.cast(model(inputs), "float32"))


def require_equal(one, other, atol=1e-5):
    np.testing.assert_allclose(outputs(one), outputs(other), rtol=0, atol=atol)


def compiled(model):
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), weighted_metrics=["accuracy"])
    return model


def in_folder(check):
    """A check that is given an empty folder too."""

    @functools.wraps(check)
    def call(lib):
        with tempfile.TemporaryDirectory() as folder:
            check(lib, Path(folder))

    return call


# --- KerasHub's harness


def serialization(lib):
    harness().run_serialization_test(lib.backbone())


def backbone_basics(lib):
    harness().run_backbone_test(
        cls=lib.backbone_class,
        init_kwargs=SIZES,
        input_data=INPUTS,
        expected_output_shape=(2, 5, 8),
        run_mixed_precision_check=False,
        run_quantization_check=False,
    )


def precision(lib):
    harness().run_precision_test(lib.backbone_class, dict(SIZES), INPUTS)


def quantization_by_policies(lib):
    harness().run_quantization_test(lib.backbone(), lib.backbone_class, dict(SIZES), INPUTS)


def backbone_saving(lib):
    harness().run_model_saving_test(lib.backbone_class, SIZES, INPUTS)


def task_serialization(lib):
    harness().run_serialization_test(lib.causal_lm())


def task_saving(lib):
    harness().run_model_saving_test(type(lib.causal_lm()), _task_arguments(lib), INPUTS)


def _task_arguments(lib):
    return {"backbone": lib.backbone()} | ({} if lib.name == "ours" else {"preprocessor": None})


def litert_export(lib):
    harness().run_litert_export_test(cls=lib.causal_lm_class, init_kwargs=_task_arguments(lib), input_data=INPUTS)


def task_basics_with_text(lib):
    model = lib.with_text()
    compiled(model).fit([TEXT, "and sleep"], batch_size=2, verbose=0)


# --- the tests of its Llama


def number_of_parameters(lib):
    assert lib.backbone().count_params() == 968  # of the PyTorch model, says their test


@in_folder
def backbone_preset(lib, folder):
    model = lib.backbone()
    model.save_to_preset(str(folder / "preset"))
    require_equal(lib.backbone_class.from_preset(str(folder / "preset")), model, 0)


@in_folder
def tied_preset(lib, folder):
    model = lib.backbone(tie_word_embeddings=True)
    model.save_to_preset(str(folder / "preset"))
    assert lib.backbone_class.from_preset(str(folder / "preset")).count_params() == model.count_params()


def preset_arguments(lib):
    model = lib.backbone_class.from_preset(str(lib.folder), load_weights=False, dtype="bfloat16", dropout=0.5)
    assert model.dtype_policy.name == "bfloat16" and model.dropout == 0.5


def preset_of_no_model(lib):
    try:
        lib.backbone_class.from_preset("clowntown")
    except Exception:
        return
    raise AssertionError("a preset that does not exist was loaded")


def preset_names(lib):
    assert "llama3_8b_en" in lib.backbone_class.presets and "llama3_8b_en" in lib.causal_lm_class.presets


def layouts(lib):
    assert callable(lib.backbone_class.get_layout_map)


def generate_text(lib):
    assert TEXT in lib.with_text().generate(TEXT, max_length=16)


def generate_many(lib):
    found = lib.with_text().generate([TEXT, "and"], max_length=16)
    assert [text[:3] for text in found] == ["Lla", "and"]


def generate_without_length(lib):
    model = lib.with_text()
    if lib.name == "KerasHub":
        model.preprocessor.sequence_length = 16
    model.generate(TEXT)


def generate_token_ids(lib):
    ids = np.array([[1, 2, 3, 0, 0]], "int32")
    lib.causal_lm().generate({"token_ids": ids, "padding_mask": (ids > 0).astype("int32")}, stop_token_ids=None)


def generate_without_prompt(lib):
    assert TEXT not in lib.with_text().generate(TEXT, max_length=16, strip_prompt=True)


def special_tokens_in_prompts(lib):
    options = {"special_tokens": True} if lib.name == "ours" else {}
    text = lib.with_text().generate("Hi<|start_header_id|>", max_length=16, **options)
    assert text.startswith("Hi") and "header" not in text  # a special token is left out of the answer


def samplers(lib):
    lib.with_text().compile(sampler="greedy")


def score_logits(lib):
    found = lib.causal_lm().score(X["token_ids"], padding_mask=X["padding_mask"], scoring_mode="logits")
    assert found.shape == (5, 6, 10)


def score_layers(lib):
    lib.causal_lm().score(
        X["token_ids"], padding_mask=X["padding_mask"], layer_intercept_fn=lambda x, i: x, scoring_mode="logits"
    )


# --- what its guides show


def fit(lib):
    model = compiled(lib.causal_lm())
    model.fit(X, Y, batch_size=2, verbose=0)


def fit_without_compile(lib):
    model = lib.with_text()
    tokens = np.ones((2, 5), "int32")
    if lib.name == "KerasHub":
        model.preprocessor = None
    model.fit({"token_ids": tokens, "padding_mask": tokens}, tokens, verbose=0)


def fit_sample_weight(lib):
    compiled(lib.causal_lm()).fit(X, Y, sample_weight=np.ones(Y.shape, "float32"), batch_size=2, verbose=0)


def fit_dataset(lib):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
    model = compiled(lib.causal_lm())
    model.fit(data, validation_data=data, verbose=0)


def fit_unknown_length(lib):
    import tensorflow as tf

    def batches():
        for length in (3, 5, 6):
            yield {key: array[:3, :length] for key, array in X.items()}, Y[:3, :length]

    spec = tf.TensorSpec((None, None), tf.int32)
    data = tf.data.Dataset.from_generator(batches, output_signature=(dict.fromkeys(X, spec), spec))
    compiled(lib.causal_lm()).fit(data, verbose=0)


def fit_adapters(lib):
    model = lib.causal_lm()
    model.backbone.enable_lora(2)
    compiled(model).fit(X, Y, batch_size=2, verbose=0)
    assert all("lora" in variable.path for variable in model.trainable_variables)


def predict_and_evaluate(lib):
    model = compiled(lib.causal_lm())
    np.testing.assert_allclose(model.predict(X, batch_size=2, verbose=0), outputs(model), rtol=0, atol=1e-5)
    assert len(model.evaluate(X, Y, batch_size=2, verbose=0)) == 2


def head_from_input(lib):
    backbone = lib.backbone()
    _train_head(keras.Model(backbone.input, keras.layers.Dense(2)(backbone.output[:, -1])))


def head_by_call(lib):
    inputs = {key: keras.Input((None,), dtype="int32", name=key) for key in X}
    _train_head(keras.Model(inputs, keras.layers.Dense(2)(lib.backbone()(inputs)[:, -1])))


def _train_head(head):
    head.compile("adam", "mse")
    head.fit(X, np.zeros((5, 2)), batch_size=2, verbose=0)
    assert head.predict(X, batch_size=2, verbose=0).shape == (5, 2)


def inner_outputs(lib):
    backbone = lib.backbone()
    keras.Model(backbone.input, backbone.get_layer("transformer_layer_0").output)


def sequential(lib):
    model = keras.Sequential([lib.backbone(), keras.layers.Dense(2)])
    assert model.predict(X, batch_size=2, verbose=0).shape == (5, 6, 2)


def unknown_inputs(lib):
    try:
        lib.backbone()({**X, "attention_mask": X["padding_mask"]})
    except ValueError:
        return
    raise AssertionError("an input that nobody reads was taken")


def only_token_ids(lib):
    assert outputs(lib.backbone(), {"token_ids": X["token_ids"]}).shape == (5, 6, 8)


def _with_adapters(lib, quantized=False):
    model = lib.causal_lm()
    if quantized:
        model.quantize("int8")
    model.backbone.enable_lora(2)
    for variable in model.backbone.trainable_variables:
        variable.assign(np.random.default_rng(0).normal(0, 0.5, variable.shape))
    return model


@in_folder
def adapters_in_a_file(lib, folder, quantized=False):
    model = _with_adapters(lib, quantized)
    model.save(folder / "model.keras")
    again = keras.models.load_model(folder / "model.keras")
    require_equal(again, model, 0)
    assert len(again.trainable_variables) == len(model.trainable_variables)


def integers_and_adapters_in_a_file(lib):
    adapters_in_a_file(lib, quantized=True)


@in_folder
def weights_file(lib, folder):
    model, again = lib.causal_lm(), lib.causal_lm()
    model.save_weights(folder / "model.weights.h5")
    again.load_weights(folder / "model.weights.h5")
    require_equal(again, model, 0)


@in_folder
def adapters_in_other_weights(lib, folder):
    _with_adapters(lib).save_weights(folder / "model.weights.h5")
    plain = lib.causal_lm()
    before = outputs(plain)
    try:
        plain.load_weights(folder / "model.weights.h5")
    except ValueError:
        return
    adapted = outputs(_with_adapters(lib))
    raise AssertionError(f"adapters are gone or merged without a word: {np.abs(before - adapted).max()}")


@in_folder
def lora_weights(lib, folder):
    model, again = _with_adapters(lib), lib.causal_lm()
    model.backbone.save_lora_weights(str(folder / "model.lora.h5"))
    again.backbone.load_lora_weights(str(folder / "model.lora.h5"))


@in_folder
def adapters_in_a_preset(lib, folder):
    """Kept, or refused."""
    model = _with_adapters(lib).backbone
    try:
        model.save_to_preset(str(folder / "preset"))
    except ValueError:
        return
    require_equal(lib.backbone_class.from_preset(str(folder / "preset")), model)


def copies(lib):
    model = lib.causal_lm()
    require_equal(copy.deepcopy(model), model, 0)


def copies_with_adapters(lib):
    model = _with_adapters(lib)
    again = copy.deepcopy(model)
    require_equal(again, model, 0)
    assert len(again.trainable_variables) == len(model.trainable_variables)


def clone(lib):
    model = lib.causal_lm()
    assert keras.models.clone_model(model).count_params() == model.count_params()


@in_folder
def export(lib, folder, **options):
    import tensorflow as tf

    model = lib.causal_lm()
    model.export(str(folder / "model"), verbose=False, **options)
    served = tf.saved_model.load(str(folder / "model"))
    found = np.asarray(served.serve({key: tf.constant(array) for key, array in X.items()}))
    np.testing.assert_allclose(found, outputs(model), rtol=0, atol=1e-5)


def export_signature(lib):
    spec = keras.InputSpec(dtype="int32", shape=(None, None))
    export(lib, input_signature=[dict.fromkeys(X, spec)])


def quantize(lib):
    model = lib.causal_lm()
    model.quantize("int8")
    assert "int8" in {variable.dtype for variable in model.weights}
    assert np.isfinite(outputs(model)).all()


def quantize_after_predict(lib):
    model = lib.causal_lm()
    model.predict(X, verbose=0)
    model.quantize("int8")
    np.testing.assert_allclose(model.predict(X, verbose=0), outputs(model), rtol=0, atol=1e-5)


def adapters_after_predict(lib):
    model = lib.causal_lm()
    model.predict(X, verbose=0)
    model.backbone.enable_lora(2)
    for variable in model.backbone.trainable_variables:
        variable.assign(np.full(variable.shape, 0.5))
    np.testing.assert_allclose(model.predict(X, verbose=0), outputs(model), rtol=0, atol=1e-5)


def quantize_filters(lib):
    lib.causal_lm().quantize("int8", filters="query")


def target_of_nothing(lib):
    """A misspelt target must not freeze the model and train nothing."""
    model = lib.backbone()
    options = {"target_layer_names": ["qurey"]}
    try:
        model.enable_lora(2, **options)
    except ValueError:
        return
    assert model.trainable_variables


def merge_adapters(lib):
    model = _with_adapters(lib).backbone
    before = outputs(model)
    if lib.name == "KerasHub":
        raise NotImplementedError("only saving merges them")
    lora.merge(model)
    np.testing.assert_allclose(outputs(model), before, rtol=0, atol=1e-5)


def introspection(lib):
    model = lib.causal_lm()
    lines = []
    model.summary(print_fn=lambda text, line_break=False: lines.append(text))
    assert lines and model.backbone.get_layer("transformer_layer_1") in model.backbone.layers
    assert model.backbone.dtype == "float32" and model.dtype_policy == model.backbone.dtype_policy
    assert len(model.get_weights()) == len(model.weights)
    model.set_weights(model.get_weights())


def export_to_transformers(lib):
    with tempfile.TemporaryDirectory() as folder:
        lib.backbone().export_to_transformers(folder)


HARNESS, TESTS, GUIDE = "its harness", "its tests of Llama", "its documentation"
CONTRACT = (
    Row("`get_config`, `from_config`, serialization of a backbone", HARNESS, serialization),
    Row("a backbone: calls, other lengths, `predict`, `tf.data`, name", HARNESS, backbone_basics),
    Row("a backbone in mixed_float16, mixed_bfloat16, bfloat16", HARNESS, precision),
    Row(
        "`dtype=DTypePolicyMap(...)` makes a quantized backbone",
        HARNESS,
        quantization_by_policies,
        "one argument says it, `quantization={'mode': 'int8'}`; maps in their presets are read",
    ),
    Row("a backbone in a `.keras` file", HARNESS, backbone_saving),
    Row("serialization of a language model", HARNESS, task_serialization),
    Row("a language model in a `.keras` file", HARNESS, task_saving),
    Row(
        "`fit` on texts",
        HARNESS,
        task_basics_with_text,
        "token ids only: `llama-exp train` prepares texts, packs them and resumes",
    ),
    Row("968 parameters, as in PyTorch", TESTS, number_of_parameters),
    Row("`save_to_preset`, `from_preset`", TESTS, backbone_preset),
    Row("the same with tied embeddings", TESTS, tied_preset, "theirs comes back untied"),
    Row("`from_preset` with `dtype` and `dropout`", TESTS, preset_arguments),
    Row("`from_preset` of no model is an error", TESTS, preset_of_no_model),
    Row("`presets` of both classes", TESTS, preset_names),
    Row("`get_layout_map`", TESTS, layouts),
    Row("`generate` continues a text", TESTS, generate_text),
    Row("`generate` continues several texts", TESTS, generate_many),
    Row("`generate` without `max_length`", TESTS, generate_without_length, "no preprocessor states one: give it"),
    Row(
        "`generate` of a dict of padded token ids",
        TESTS,
        generate_token_ids,
        "give token ids without padding, arrays of any lengths",
    ),
    Row("`generate(strip_prompt=True)`", TESTS, generate_without_prompt, "token ids in: `output[len(prompt):]`"),
    Row(
        "names of special tokens in a prompt are the tokens",
        GUIDE,
        special_tokens_in_prompts,
        "here with `special_tokens=True`; otherwise they are text, and a warning says so",
    ),
    Row("`compile(sampler=...)`", TESTS, samplers, "arguments of `generate`: temperature, top_k, top_p"),
    Row("`score(scoring_mode='logits')`", TESTS, score_logits, "calling the model gives logits; `score` scores"),
    Row("`score(layer_intercept_fn=...)`", TESTS, score_layers, "`llama_exp.models.layer_outputs` has every layer"),
    Row("`compile`, `fit` with a short last batch", GUIDE, fit),
    Row("`fit` without `compile`", GUIDE, fit_without_compile, "an optimizer is chosen by whoever trains"),
    Row("`fit` with sample weights", GUIDE, fit_sample_weight),
    Row("`fit` on `tf.data`, with validation", GUIDE, fit_dataset),
    Row("`fit` on batches of unknown length", GUIDE, fit_unknown_length),
    Row("`enable_lora`, then `fit`: adapters train, nothing else", GUIDE, fit_adapters),
    Row("`predict` and `evaluate` over several batches", GUIDE, predict_and_evaluate),
    Row("a head on `backbone.input` and `backbone.output`", GUIDE, head_from_input),
    Row("a head on a backbone that is called on `keras.Input`", GUIDE, head_by_call),
    Row(
        "`backbone.get_layer(...).output`",
        GUIDE,
        inner_outputs,
        "blocks are traced once for all layers; `llama_exp.models.layer_outputs` has every layer's output",
    ),
    Row("a backbone in `keras.Sequential`", GUIDE, sequential, "of a dict of inputs"),
    Row("an input of an unknown name is an error", GUIDE, unknown_inputs),
    Row("`token_ids` alone", GUIDE, only_token_ids, "theirs wants a mask of ones"),
    Row("adapters in a `.keras` file", GUIDE, adapters_in_a_file, "theirs are merged, and no longer train"),
    Row("integers and adapters in a `.keras` file", GUIDE, integers_and_adapters_in_a_file, "theirs are rounded anew"),
    Row("`save_weights`, `load_weights`", GUIDE, weights_file),
    Row("weights with adapters, loaded without, are refused", GUIDE, adapters_in_other_weights),
    Row(
        "`save_lora_weights`, `load_lora_weights`",
        GUIDE,
        lora_weights,
        "`llama_exp.lora.save_adapter` for PEFT; `load_adapter` reads `.lora.h5`",
    ),
    Row("adapters in a preset are kept or refused", GUIDE, adapters_in_a_preset),
    Row("`copy.deepcopy`, `pickle`", GUIDE, copies),
    Row("the same with adapters", GUIDE, copies_with_adapters),
    Row("`keras.models.clone_model`", GUIDE, clone),
    Row("`export` as a SavedModel", GUIDE, export),
    Row("`export` with a signature", GUIDE, export_signature),
    Row("`quantize('int8')` of a language model", GUIDE, quantize),
    Row("`predict` after `quantize`", GUIDE, quantize_after_predict),
    Row("`predict` after `enable_lora`", GUIDE, adapters_after_predict, "theirs goes on without the adapters"),
    Row(
        "`quantize(filters=...)`",
        GUIDE,
        quantize_filters,
        "`int8_layers`, `embeddings` and `float_activations` choose by kind of layer",
    ),
    Row("a target that matches no layer is an error", GUIDE, target_of_nothing),
    Row("adapters are merged in memory", GUIDE, merge_adapters, "`llama_exp.lora.merge`"),
    Row("`summary`, `layers`, `dtype`, `get_weights`", GUIDE, introspection),
    Row("`export_to_transformers`", GUIDE, export_to_transformers, "`llama-exp convert preset folder`"),
)


def works(row: Row, lib: Library) -> bool:
    """Whether the row's call does what it says on a library."""
    try:
        row.check(lib)
    except Exception:
        return False
    finally:
        keras.config.set_dtype_policy("float32")
    return True


def outcome(row: Row, both: tuple[Library, Library]) -> str:
    """One of the outcomes above, or `neither` works."""
    here, there = (works(row, lib) for lib in both)
    return {(True, True): "same", (True, False): "better", (False, True): "refused"}.get((here, there), "neither")


PAGE = Path(__file__).parents[1] / "docs" / "reference" / "keras_hub_contract.md"
_HEAD = """<!-- Made by tests/renew_contract.py, which runs every row on both libraries. -->

# KerasHub's contract

What KerasHub tests and documents of a `Backbone` and a `CausalLM`, run on its Llama and on `LlamaBackbone` and
`LlamaCausalLM`. *same*: the call works on both. *better*: it works here, and fails there. *refused*: it works there and
raises here; the row says why, or what to do instead.

Rows from its harness run `keras_hub/src/tests/test_case.py` as it is installed. The test modules of its Llama are not
part of the package: what they check is stated again in `tests/keras_hub_contract.py`.

"""


def render_row(row: Row, found: str) -> str:
    """The line of the table."""
    return f"| {row.what} | {row.source} | {found} | {row.note} |"


def render_counts(outcomes: list[str]) -> str:
    """How many of the rows work here."""
    parts = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("same", "better", "refused"))
    return f"**{len(outcomes) - outcomes.count('refused')} of {len(outcomes)} work here**: {parts}."


def render(outcomes: list[str]) -> str:
    """The page, for the outcomes of all rows in order."""
    lines = ["| what | where KerasHub asks it | here | note |", "|---|---|---|---|"]
    lines += [render_row(row, found) for row, found in zip(CONTRACT, outcomes, strict=True)]
    return _HEAD + render_counts(outcomes) + "\n\n" + "\n".join(lines) + "\n"
