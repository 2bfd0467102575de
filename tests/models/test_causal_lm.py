"""The language model: logits, scores, text in and out, presets with a tokenizer, and bad arguments."""

import keras
import numpy as np
import oracles
import pytest

from llama_exp import tokenizer as tokenizers
from llama_exp.errors import InputError
from llama_exp.models import LlamaBackbone, LlamaCausalLM

pytestmark = pytest.mark.neutral

TINY = {
    "vocabulary_size": 300,  # the byte tokenizer has fewer ids
    "num_layers": 1,
    "num_query_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.byte(texts=list, preset_folder=None, cache_dir="", fingerprint="")


@pytest.fixture(scope="module")
def model(tokenizer):
    backbone = LlamaBackbone(**TINY)
    oracles.randomize(backbone, seed=1)
    return LlamaCausalLM(backbone, tokenizer)


def inputs():
    rng = np.random.default_rng(1)
    mask = np.ones((3, 9), "int32")
    mask[1, 6:] = 0
    mask[2, :4] = 0
    return {"token_ids": rng.integers(0, 300, (3, 9)).astype("int32"), "padding_mask": mask}


@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_the_projected_hidden_states(tied):
    backbone = LlamaBackbone(**TINY, tie_word_embeddings=tied)
    oracles.randomize(backbone)
    model, batch, config = LlamaCausalLM(backbone), inputs(), backbone.get_config()
    logits = model({"token_ids": batch["token_ids"]})
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    weights = oracles.arrays(backbone)
    expected = oracles.numpy_logits(config, weights, oracles.numpy_hidden(config, weights, batch["token_ids"]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(logits), expected, rtol=0, atol=oracles.TOLERANCE)


def test_logits_are_float32_whatever_the_policy():
    model = LlamaCausalLM(LlamaBackbone(**TINY, dtype="bfloat16"))
    assert keras.backend.standardize_dtype(model(inputs()).dtype) == "float32"


def test_the_model_has_the_backbones_variables_and_no_others(model):
    assert [v.path for v in model.variables] == [v.path for v in model.backbone.variables]
    assert model.count_params() == model.backbone.count_params()


def test_config_round_trip(model):
    again = LlamaCausalLM.from_config(model.get_config())
    assert again.get_config() == model.get_config()


def test_scores_are_log_probabilities(model):
    batch = inputs()
    scores = model.score(batch["token_ids"], batch["padding_mask"])
    config, weights = model.backbone.get_config(), oracles.arrays(model.backbone)
    for row, mask in enumerate(batch["padding_mask"].astype(bool)):
        ids = batch["token_ids"][row, mask]
        logits = oracles.numpy_logits(config, weights, oracles.numpy_hidden(config, weights, ids[None]))[0]
        log_probabilities = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        log_probabilities -= logits.max(-1, keepdims=True)
        expected = np.zeros(9)
        expected[np.flatnonzero(mask)[1:]] = log_probabilities[np.arange(len(ids) - 1), ids[1:]]
        np.testing.assert_allclose(scores[row], expected, rtol=0, atol=oracles.TOLERANCE)
    assert scores.dtype == np.float32


def test_scores_of_long_rows_are_those_of_one_piece(model, monkeypatch):
    batch = inputs()
    whole = model.score(batch["token_ids"])
    monkeypatch.setattr("llama_exp.models.causal_lm.SCORE_POSITIONS", 3)
    np.testing.assert_allclose(model.score(batch["token_ids"]), whole, rtol=0, atol=oracles.EXACT_TOLERANCE)
    assert (whole[:, 1:] < 0).all() and (whole[:, 0] == 0).all()


def test_text_in_text_out(model, tokenizer):
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids = np.array(begin + tokenizer.encode("Llamas"), np.int32)
    expected = tokenizer.decode(model.generate(ids, 17).tolist())
    text = model.generate("Llamas", 17)
    assert isinstance(text, str) and text == expected and text.startswith("Llamas")
    assert model.generate(["Llamas", "Al"], 17) == [text, model.generate("Al", 17)]
    assert ids[0] == tokenizer.bos_id
    assert max(model.generate(ids, 17)) < tokenizer.vocabulary_size < model.backbone.vocabulary_size


def test_auto_stops_at_the_tokenizers_end(model, tokenizer, monkeypatch):
    prompt = np.array([1, 2], np.int32)
    free = model.generate(prompt, 17, stop_token_ids=None)
    assert len(free) == 17
    monkeypatch.setattr(tokenizer, "stop_ids", (int(free[4]), 299))
    ended = model.generate(prompt, 17)
    assert ended.tolist() == free[: len(ended)].tolist()
    assert ended[-1] == free[4] and len(ended) <= 5
    assert model._stop_ids(None) == [] and model._stop_ids([7]) == [7]


def test_the_forms_of_prompts(model):
    one = model.generate(np.array([5, 6, 7]), 17)
    assert isinstance(one, np.ndarray) and one.dtype == np.int32
    assert model.generate([5, 6, 7], 17).tolist() == one.tolist()
    assert [row.tolist() for row in model.generate([[5, 6, 7]], 17)] == [one.tolist()]
    assert [row.tolist() for row in model.generate(np.array([[5, 6, 7], [5, 6, 7]]), 17)] == [one.tolist()] * 2


@pytest.mark.parametrize(
    ("prompts", "arguments", "expected"),
    [
        ([], {}, "prompts is empty"),
        ([[]], {}, r"prompts\[0\] has no tokens"),
        ([[1], [1] * 8], {}, r"prompts\[1\] has 8 tokens, which leaves no room in max_length=8"),
        ([1, 300], {}, "token 300, outside of the vocabulary of 300"),
        ([1, -1], {}, "token -1"),
        ([[1.5]], {}, "1-D arrays of token ids"),
        ([[[1]]], {}, "1-D arrays of token ids"),
        ([1], {"max_length": 8.0}, "max_length=8.0"),
        ([1], {"seed": -1}, "seed=-1"),
        ([1], {"stop_token_ids": "end"}, "stop_token_ids='end'"),
        ([1], {"temperature": -1}, "temperature=-1"),
        ([1], {"top_k": 3}, "top_k=3 have no effect"),
    ],
)
def test_bad_arguments_are_named(model, prompts, arguments, expected):
    with pytest.raises(ValueError, match=expected):
        model.generate(prompts, **({"max_length": 8} | arguments))


def test_preset_round_trip_with_tokenizer(model, tokenizer, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    again = LlamaCausalLM.from_preset(tmp_path / "preset")
    assert again.tokenizer.fingerprint == tokenizer.fingerprint
    assert again.generate("Llamas", 17) == model.generate("Llamas", 17)
    random = LlamaCausalLM.from_preset(str(tmp_path / "preset"), load_weights=False, dtype="bfloat16")
    assert random.tokenizer.fingerprint == tokenizer.fingerprint
    assert not np.array_equal(*(oracles.arrays(one.backbone)["token_embedding/embeddings"] for one in (random, model)))
    assert random.backbone.compute_dtype == "bfloat16"
    with pytest.raises(InputError, match="model.num_layers"):
        LlamaCausalLM.from_preset(tmp_path / "preset", num_layers=3)


def test_a_preset_without_tokenizer_takes_token_ids(model, tmp_path):
    LlamaCausalLM(model.backbone).save_to_preset(tmp_path / "preset")
    again = LlamaCausalLM.from_preset(tmp_path / "preset")
    assert again.tokenizer is None
    batch = {"token_ids": inputs()["token_ids"]}
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(one(batch)) for one in (again, model)))
    with pytest.raises(ValueError, match="no tokenizer"):
        again.generate("Llamas", 17)


@pytest.mark.oracle
def test_keras_hub_loads_the_whole_preset(model, tmp_path):
    import keras_hub

    model.save_to_preset(tmp_path / "preset")
    theirs = keras_hub.models.CausalLM.from_preset(str(tmp_path / "preset"))
    assert type(theirs).__name__ == "Llama3CausalLM"  # the byte-level tokenizer is Llama 3's
    ids = theirs.preprocessor.tokenizer("Llamas eat")
    assert np.asarray(ids).tolist() == model.tokenizer.encode("Llamas eat")
    batch = {key: inputs()[key][:2] for key in ("token_ids", "padding_mask")}
    mask = batch["padding_mask"] == 1
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(theirs(batch))[mask],
        keras.ops.convert_to_numpy(model(batch))[mask],
        rtol=0,
        atol=oracles.TOLERANCE,
    )
