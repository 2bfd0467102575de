"""SentencePiece models: special tokens, continuations, files."""

import pytest
from small_tokenizers import sentence_piece_model

from llama_exp.tokenizer import load
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer


@pytest.fixture
def tokenizer():
    return SentencePieceTokenizer(sentence_piece_model())


@pytest.mark.parametrize("text", ["the quick brown fox", "  two  spaces\n\ttab", "naïve 😀 ☃", ""])
def test_decode_gives_the_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_ids_are_llama_2s(tokenizer):
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.stop_ids) == (1, 2, None, (2,))
    assert (tokenizer.special_id("</s>"), tokenizer.special_id("<|eot_id|>")) == (2, None)


def test_special_tokens_written_in_text_stay_text(tokenizer):
    assert 2 not in tokenizer.encode("a</s>b")
    assert tokenizer.decode(tokenizer.encode("a</s>b")) == "a</s>b"


def test_a_continuation_joins_without_a_space_of_its_own(tokenizer):
    whole = tokenizer.encode("the quick fox")
    assert tokenizer.encode("the quick") + tokenizer.encode(" fox", continuation=True) == whole
    assert tokenizer.decode(tokenizer.encode("jump") + tokenizer.encode("ed", continuation=True)) == "jumped"


def test_decode_can_show_special_tokens(tokenizer):
    ids = [1, *tokenizer.encode("the fox"), 2]
    assert tokenizer.decode(ids) == "the fox"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<s>the fox</s>"


def test_decode_shows_an_id_without_a_token(tokenizer):
    assert tokenizer.decode([*tokenizer.encode("fox"), 99999, -1]) == "fox[no token: 99999][no token: -1]"


def test_save_and_load_give_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert load(tmp_path).fingerprint == tokenizer.fingerprint


def test_other_bytes_are_refused():
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        SentencePieceTokenizer(b"certainly not a model")
