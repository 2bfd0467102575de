"""Our assets in KerasHub's tokenizers, and theirs in ours: the same ids."""

import json

import pytest
import tokenizers
from keras.src.saving import serialization_lib
from small_tokenizers import sentence_piece_model

from llama_exp.tokenizer import load
from llama_exp.tokenizer.byte_pair import SPECIAL_TOKENS, from_merges, train
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

pytestmark = pytest.mark.oracle

TEXTS = [
    "The quick brown fox, isn't it? 12345 fox's",
    "def f(x):\n\treturn  x  ** 2\n\n\n",
    "naïve façade Ωmega 漢字 ـعربي",
    "emoji 😀👩‍👩‍👧 \U0001f1eb\U0001f1f7 end",
    "   leading, trailing   \r\n\r\n  \u00a0\u2009 x",
    "",
]


def assets(folder, config_class):
    """A KerasHub tokenizer made the way `from_preset` does: from the config, then the assets."""
    config = json.loads((folder / "tokenizer.json").read_text())
    assert config["registered_name"] == f"keras_hub>{config_class.__name__}"
    return config["config"], str(folder / "assets" / "tokenizer")


def loaded_by_keras_hub(tokenizer, folder):
    import keras_hub

    tokenizer.save(folder)
    config, assets_folder = assets(folder, keras_hub.tokenizers.Llama3Tokenizer)
    theirs = keras_hub.tokenizers.Llama3Tokenizer.from_config(config)
    with serialization_lib.SafeModeScope(False):
        theirs.load_assets(assets_folder)
    return theirs


@pytest.mark.parametrize("tokenizer", [train(TEXTS * 4, 360), from_merges([])], ids=["bpe", "byte"])
def test_llama_3(tokenizer, tmp_path, monkeypatch):
    from keras_hub.src.tokenizers import byte_pair_tokenizer as theirs_module

    # KerasHub 0.32 gives its split pattern to the tokenizers library as a plain string, which is then looked for
    # literally: its words are never split, and merges run across them. As a regular expression it is Llama 3's.
    monkeypatch.setattr(
        theirs_module, "SPLIT_PATTERN_TOKENIZERS", tokenizers.Regex(theirs_module.SPLIT_PATTERN_TOKENIZERS)
    )
    theirs = loaded_by_keras_hub(tokenizer, tmp_path)
    for text in TEXTS:
        assert [int(id_) for id_ in theirs(text)] == tokenizer.encode(text)
    assert (theirs.start_token_id, theirs.end_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert theirs.vocabulary_size() == tokenizer.vocabulary_size
    theirs.save_to_preset(str(tmp_path / "theirs"))
    again = load(tmp_path / "theirs")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.special_id(SPECIAL_TOKENS[-1]) == tokenizer.pad_id


def test_llama_3_as_it_is_differs_only_where_merges_cross_words(tmp_path):
    tokenizer = train(TEXTS * 4, 360)
    theirs = loaded_by_keras_hub(tokenizer, tmp_path)
    differing = [text for text in TEXTS if [int(id_) for id_ in theirs(text)] != tokenizer.encode(text)]
    assert differing == [TEXTS[1]]
    assert [tokenizer.decode([id_]) for id_ in tokenizer.encode("  x")] == [" ", " x"]  # \\s+(?!\\S) leaves one space


def test_llama_2(tmp_path):
    import keras_hub

    tokenizer = SentencePieceTokenizer(sentence_piece_model())
    tokenizer.save(tmp_path)
    config, folder = assets(tmp_path, keras_hub.tokenizers.LlamaTokenizer)
    theirs = keras_hub.tokenizers.LlamaTokenizer.from_config(config)
    with serialization_lib.SafeModeScope(False):
        theirs.load_assets(folder)
    for text in TEXTS:
        assert [int(id_) for id_ in theirs(text)] == tokenizer.encode(text)
    theirs.save_to_preset(str(tmp_path / "theirs"))
    assert load(tmp_path / "theirs").fingerprint == tokenizer.fingerprint
