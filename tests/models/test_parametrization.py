"""muP: first values and learning rates by the published table, and a plain Llama all the same."""

import numpy as np
import pytest
from initial_models import SIZES, values

from llama_exp import lora
from llama_exp.architecture.parametrization import MupRates, find_factors, rate_factors
from llama_exp.formats.random_weights import random_checkpoint
from llama_exp.limits import ImpossibleValue
from llama_exp.models import LlamaBackbone

pytestmark = pytest.mark.neutral
MUP = {"parametrization": "mup", "base_hidden_dim": 8, "base_head_dim": 2}  # m = 4, heads of 8: h = 1 / 4
BLOCK = "transformer_layer_0"
SCALES = [f"{BLOCK}/self_attention_layernorm/scale", f"{BLOCK}/feedforward_layernorm/scale"]
QUERY, OUTPUT = f"{BLOCK}/self_attention/query/kernel", "token_embedding/reverse_embeddings"
HIDDEN = [f"{BLOCK}/self_attention/{name}/kernel" for name in ("key", "value", "attention_output")]
HIDDEN += [f"{BLOCK}/feedforward_{name}_dense/kernel" for name in ("gate", "intermediate", "output")]


def built(seed=3, **arguments):
    return LlamaBackbone(**SIZES | {"num_layers": 1} | arguments, seed=seed, dtype="float32")


def table(tied):
    """Path -> (first values, rate under Adam, rate under SGD), from table 8 of arXiv:2203.03466 for m = 4, h = 1 / 4.

    There an output matrix has a factor 1 / m and the rates m of SGD, 1 of Adam; attention has a factor sqrt(h). What
    is multiplied here has c times the first values, c times Adam's rate and c^2 times SGD's (lemma J.1).
    """
    c_output, c_query = 1 / 4, 1 / 2
    factors = dict.fromkeys(HIDDEN, (1 / 2, 1 / 4, 1)) | dict.fromkeys(SCALES, (1, 1, 4))
    factors |= {"token_embedding/embeddings": (1, 1, 4), QUERY: (c_query / 2, c_query / 4, c_query**2)}
    multiplied = (c_output, c_output, c_output**2 * 4)
    plain = {"sequence_output_layernorm/scale": (1, 1, 4)}
    return factors | ({"sequence_output_layernorm/scale": multiplied} if tied else plain | {OUTPUT: multiplied})


@pytest.mark.parametrize("tied", [True, False])
def test_the_factors_are_those_of_the_paper(tied):
    backbone, expected = built(**MUP, tie_word_embeddings=tied), table(tied)
    assert {variable.path for variable in backbone.weights} == set(expected)
    for column, rates in ((1, MupRates.adam), (2, MupRates.sgd)):
        found = rate_factors(backbone, rates)
        assert found == {path: row[column] for path, row in expected.items() if row[column] != 1}
    plain, first = values(built(tie_word_embeddings=tied)), values(backbone)
    for path, row in expected.items():
        np.testing.assert_allclose(first[path], row[0] * plain[path], rtol=1e-6, err_msg=path)


@pytest.mark.parametrize("tied", [True, False])
def test_at_the_base_width_nothing_differs(tied):
    base = {"parametrization": "mup", "base_hidden_dim": 32, "base_head_dim": 8}
    mup, standard = built(**base, tie_word_embeddings=tied), built(tie_word_embeddings=tied)
    assert rate_factors(mup) == rate_factors(mup, MupRates.sgd) == rate_factors(standard) == {}
    for path, array in values(standard).items():
        assert np.array_equal(values(mup)[path], array), path


def test_a_wider_model_has_more_heads_unless_it_is_said_that_heads_grow():
    config = built(**MUP | {"base_head_dim": None}).get_config()
    assert find_factors(config, QUERY) == find_factors(config, HIDDEN[0])


def test_a_checkpoint_of_random_weights_has_the_same_values():
    backbone = built(**MUP, tie_word_embeddings=False)
    tensors = random_checkpoint(backbone.get_config(), backbone.seed).tensors
    for path, array in values(backbone).items():
        assert np.array_equal(tensors[path].read(), array), path


def test_a_config_makes_the_same_model_again():
    backbone = built(**MUP, train_norms=False)
    again = LlamaBackbone.from_config(backbone.get_config())
    assert again.get_config() == backbone.get_config()
    assert {key: backbone.get_config()[key] for key in MUP} == MUP
    assert rate_factors(again) == rate_factors(backbone)


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_saved_is_a_plain_llama(tmp_path, tied):
    backbone = built(**MUP, tie_word_embeddings=tied)
    backbone.save_to_preset(tmp_path / "model")
    plain = LlamaBackbone.from_preset(str(tmp_path / "model"), dtype="float32")
    assert plain.parametrization == "standard"
    token_ids = {"token_ids": np.arange(12, dtype=np.int32).reshape(2, 6)}
    assert np.array_equal(np.asarray(backbone(token_ids)), np.asarray(plain(token_ids)))
    assert np.array_equal(values(plain)["sequence_output_layernorm/scale"][0], np.float32(0.25 if tied else 1))


def test_the_scales_of_norms_are_held():
    backbone = built(train_norms=False)
    held = {variable.path for variable in backbone.weights if not variable.trainable}
    assert held == {*SCALES, "sequence_output_layernorm/scale"}
    backbone.trainable = False
    backbone.trainable = True
    assert {variable.path for variable in backbone.weights if not variable.trainable} == held
    backbone.enable_lora(rank=2)
    lora.merge(backbone)
    assert {variable.path for variable in backbone.weights if not variable.trainable} == held


def test_adapters_have_the_rate_that_is_stated():
    backbone = built(**MUP)
    backbone.enable_lora(rank=2)
    assert rate_factors(backbone) == {}


def test_a_class_of_somebody_elses_has_no_factors():
    assert rate_factors(object()) == {}


def test_what_is_impossible():
    with pytest.raises(ImpossibleValue, match="model.base_hidden_dim"):
        built(parametrization="mup")
    with pytest.raises(ImpossibleValue, match="give one of standard, mup"):
        built(parametrization="ntk")
    with pytest.raises(ImpossibleValue, match="model.base_hidden_dim"):
        built(parametrization="mup", base_hidden_dim=0)
    with pytest.raises(ValueError, match="adamw"):
        rate_factors(built(**MUP), None)
