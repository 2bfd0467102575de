"""Weights in Keras' own files: loaded into a model of the same form, refused by any other."""

import keras
import numpy as np
import oracles
import pytest

from llama_exp.models import LlamaBackbone, LlamaCausalLM

pytestmark = pytest.mark.neutral

TINY = {
    "vocabulary_size": 40,
    "num_layers": 1,
    "num_query_heads": 4,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "num_key_value_heads": 2,
}
FORMS = ("plain", "lora", "lora of rank 4", "dora", "int8", "float8", "float8 and lora")
INPUTS = {"token_ids": np.arange(12, dtype="int32").reshape(2, 6)}


def make(form, seed=0, dropout=0.0):
    backbone = LlamaBackbone(**TINY)
    oracles.randomize(backbone, seed)
    if form.split()[0] in ("int8", "float8"):
        backbone.quantize(form.split()[0])
    if "lora" in form or form == "dora":
        backbone.enable_lora(4 if "4" in form else 2, use_dora=form == "dora", dropout=dropout)
        for variable in backbone.trainable_variables:
            variable.assign(np.random.default_rng(seed).normal(0, 0.1, variable.shape))
    return LlamaCausalLM(backbone)


@pytest.mark.parametrize("form", FORMS)
def test_weights_go_into_a_model_of_the_same_form(form, tmp_path):
    model, other = make(form), make(form, seed=1, dropout=0.5)
    model.save_weights(tmp_path / "model.weights.h5")
    assert np.abs(keras.ops.convert_to_numpy(other(INPUTS)) - keras.ops.convert_to_numpy(model(INPUTS))).max() > 1e-3
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(one(INPUTS)) for one in (other, model)))


@pytest.mark.parametrize("form", FORMS)
def test_and_into_no_other(form, tmp_path):
    make(form).save_weights(tmp_path / "model.weights.h5")
    for other in set(FORMS) - {form}:
        with pytest.raises(ValueError, match="no weights of the model's form.*keras.models.load_model"):
            make(other).load_weights(tmp_path / "model.weights.h5")


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras goes on after the first failure
def test_the_weights_of_a_head_are_refused_too(tmp_path):
    def head(form):
        backbone = make(form).backbone
        return keras.Model(backbone.input, keras.layers.Dense(2)(backbone.output[:, -1]))

    head("lora").save_weights(tmp_path / "head.weights.h5")
    with pytest.raises(ValueError, match="no weights of the model's form"):
        head("plain").load_weights(tmp_path / "head.weights.h5")
