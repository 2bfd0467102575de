"""The tokenizers a config can name: caching, presets, files, refusals."""

import json

import pytest
from small_tokenizers import sentence_piece_model

from llama_exp.errors import InputError
from llama_exp.limits.tokenizer import SMALLEST_TRAINED
from llama_exp.tokenizer import auto, bpe, byte, factories, hf_json, load, preset, sentencepiece
from llama_exp.tokenizer.byte_pair import SPECIAL_TOKENS

TEXTS = ["the cat sat on the mat"] * 10


@pytest.fixture
def run_arguments(tmp_path):
    return {"texts": lambda: TEXTS, "preset_folder": None, "cache_dir": str(tmp_path / "cache"), "fingerprint": "f1"}


def test_bpe_is_trained_once_per_texts_and_size(run_arguments, monkeypatch):
    trained = []
    train = factories.train
    monkeypatch.setattr(factories, "train", lambda *arguments: trained.append(1) or train(*arguments))
    first = bpe(vocabulary_size=272, **run_arguments)
    assert bpe(vocabulary_size=272, **run_arguments).fingerprint == first.fingerprint
    assert len(trained) == 1
    assert bpe(vocabulary_size=266, **run_arguments).vocabulary_size == 266
    bpe(vocabulary_size=272, **{**run_arguments, "fingerprint": "f2"})
    assert len(trained) == 3


def test_bpe_has_no_room_below_bytes_and_special_tokens(run_arguments):
    assert 256 + len(SPECIAL_TOKENS) == SMALLEST_TRAINED
    with pytest.raises(ValueError, match="tokenizer.vocabulary_size") as caught:
        bpe(vocabulary_size=261, **run_arguments)
    assert "at least 262" in str(caught.value)
    assert bpe(vocabulary_size=262, **run_arguments).fingerprint == byte(**run_arguments).fingerprint


def test_auto_takes_the_presets_tokenizer_or_trains(run_arguments, tmp_path):
    byte(**run_arguments).save(tmp_path / "preset")
    in_preset = {**run_arguments, "preset_folder": str(tmp_path / "preset")}
    assert auto(vocabulary_size=272, **in_preset).fingerprint == byte(**run_arguments).fingerprint
    assert preset(**in_preset).fingerprint == byte(**run_arguments).fingerprint
    trained = auto(vocabulary_size=272, **run_arguments)
    assert trained.fingerprint == bpe(vocabulary_size=272, **run_arguments).fingerprint


def test_preset_without_a_preset_is_refused(run_arguments):
    with pytest.raises(ValueError, match="no preset"):
        preset(**run_arguments)


def test_files(run_arguments, tmp_path):
    file = tmp_path / "tokenizer.model"
    file.write_bytes(sentence_piece_model())
    assert sentencepiece(file=str(file), **run_arguments).bos_id == 1
    file.write_bytes(b"no model")
    with pytest.raises(InputError, match="not a SentencePiece model"):
        sentencepiece(file=str(file), **run_arguments)
    for factory in (sentencepiece, hf_json):
        with pytest.raises(InputError, match="no such tokenizer file"):
            factory(file=str(tmp_path / "missing"), **run_arguments)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "tokenizer.json").write_text('{"class_name": "GemmaTokenizer"}'), "GemmaTokenizer"),
        (lambda folder: (folder / "assets/tokenizer/merges.txt").unlink(), "cannot be read"),
        (lambda folder: (folder / "assets/tokenizer/merges.txt").write_text("a b c\n"), "not a pair"),
        (lambda folder: (folder / "assets/tokenizer/vocabulary.json").write_text('{"a": "b"}'), "whole numbers"),
        (lambda folder: (folder / "assets/tokenizer/vocabulary.json").write_text('{"a": 0}'), "missing"),
    ],
)
def test_damaged_presets_are_input_errors(run_arguments, tmp_path, damage, message):
    byte(**run_arguments).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_both_generations_of_class_names_are_read(run_arguments, tmp_path):
    byte(**run_arguments).save(tmp_path)
    config = json.loads((tmp_path / "tokenizer.json").read_text())
    config.update(registered_name="keras_nlp>Llama3Tokenizer", module="keras_nlp.src.models.llama3.llama3_tokenizer")
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    assert load(tmp_path).fingerprint == byte(**run_arguments).fingerprint


def test_a_prefix_space_is_refused(run_arguments, tmp_path):
    byte(**run_arguments).save(tmp_path)
    config = json.loads((tmp_path / "tokenizer.json").read_text())
    config["config"]["add_prefix_space"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="prefix space"):
        load(tmp_path)
