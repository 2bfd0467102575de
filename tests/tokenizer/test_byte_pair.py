"""Byte-level BPE: exact inverse, special tokens out of text's reach, deterministic training."""

import os
import subprocess
import sys

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from llama_exp.tokenizer import byte_pair, load
from llama_exp.tokenizer.byte_pair import SPECIAL_TOKENS, BytePairTokenizer, from_merges, train

TEXTS = ["the cat sat on the mat, then the cat left", "def add(a, b):\n    return a + b\n"] * 5
TRAINED = train(TEXTS, 290)
BYTES = from_merges([])


@pytest.mark.parametrize("tokenizer", [TRAINED, BYTES], ids=["bpe", "byte"])
@given(text=st.text())
def test_decode_is_the_inverse_of_encode(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not tokenizer._special_ids.intersection(ids)


@given(text=st.text())
def test_a_byte_tokens_id_is_its_byte(text):
    assert bytes(BYTES.encode(text)) == text.encode()


def test_special_tokens_come_last_and_are_never_made_from_text():
    assert TRAINED.vocabulary_size == 290
    assert [TRAINED.special_id(token) for token in SPECIAL_TOKENS] == list(range(284, 290))
    assert (TRAINED.bos_id, TRAINED.eos_id, TRAINED.pad_id) == (284, 285, 289)
    assert TRAINED.stop_ids == (285, 288)
    text = "a<|end_of_text|>b"
    assert TRAINED.eos_id not in TRAINED.encode(text)
    assert TRAINED.decode(TRAINED.encode(text)) == text
    assert TRAINED.special_id("<|im_start|>") is None


def test_decode_leaves_out_special_tokens_unless_asked():
    ids = [TRAINED.bos_id, *TRAINED.encode("the cat"), TRAINED.eos_id]
    assert TRAINED.decode(ids) == "the cat"
    assert TRAINED.decode(ids, skip_special_tokens=False) == "<|begin_of_text|>the cat<|end_of_text|>"


def test_decode_shows_half_a_character_as_a_replacement():
    assert BYTES.decode("é".encode()[:1]) == "\ufffd"


@pytest.mark.parametrize("token_id", [290, -1])
def test_decode_shows_an_id_without_a_token(token_id):
    cat = TRAINED.encode("cat")
    assert TRAINED.decode([*cat, token_id, *cat]) == f"cat[no token: {token_id}]cat"


def test_merges_shorten_what_they_were_trained_on():
    text = TEXTS[0]
    assert len(TRAINED.encode(text)) < len(text) / 2
    assert TRAINED.encode_batch([text, "", text]) == [TRAINED.encode(text), [], TRAINED.encode(text)]


def test_no_merge_crosses_a_word_or_three_digits():
    tokenizer = train(["12345 12345 12345 ab ab ab"] * 10, 400)
    pieces = [tokenizer.decode([id_]) for id_ in tokenizer.encode("12345 ab")]
    assert pieces == ["123", "45", " ab"]


def reference_encode(tokenizer, text):
    """BPE as it is defined: in each word, the pair of the earliest merge joins first."""
    ranks = {pair: rank for rank, pair in enumerate(tokenizer._merges)}
    ids = []
    for word in regex.findall(byte_pair.SPLIT_PATTERN, text):
        parts = [byte_pair.byte_tokens()[byte] for byte in word.encode()]
        while pairs := [pair for pair in zip(parts, parts[1:], strict=False) if pair in ranks]:
            first = min(pairs, key=ranks.get)
            position = next(i for i in range(len(parts)) if (parts[i], parts[i + 1]) == first)
            parts[position : position + 2] = ["".join(first)]
        ids += [tokenizer._vocabulary[part] for part in parts]
    return ids


@given(text=st.text(alphabet="the cat\n\r\t 12345'sm(),.aéß漢😀\u00a0\u2009", max_size=40))
def test_encode_is_bpe_by_its_definition(text):
    assert TRAINED.encode(text) == reference_encode(TRAINED, text)


@pytest.mark.process
def test_training_gives_the_same_tokenizer_in_every_process():
    code = "from test_byte_pair import TEXTS; from llama_exp.tokenizer.byte_pair import train; " + (
        "print(train(TEXTS * 20, 290).fingerprint)"
    )
    found = set()
    for seed, threads in (("1", "1"), ("2", "4")):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "RAYON_NUM_THREADS": threads,
            "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
        }
        found.add(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)
    assert found == {f"{train(TEXTS * 20, 290).fingerprint}\n".encode()}


def test_a_small_text_gives_a_smaller_vocabulary():
    assert train(["ab"], 500).vocabulary_size == 256 + len(SPECIAL_TOKENS)


def test_fingerprint_tells_vocabularies_apart():
    assert TRAINED.fingerprint == BytePairTokenizer(TRAINED._vocabulary, TRAINED._merges).fingerprint
    assert len({TRAINED.fingerprint, BYTES.fingerprint, train(TEXTS, 289).fingerprint}) == 3


@pytest.mark.parametrize("tokenizer", [TRAINED, BYTES], ids=["bpe", "byte"])
def test_save_and_load_give_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert load(tmp_path).fingerprint == tokenizer.fingerprint


def test_merges_of_white_space_characters_survive_the_file(tmp_path):
    # U+0085 and U+00A0 are white space for str.split(); as byte characters they are parts of merges.
    tokenizer = train(["\u00a0\u00a0\u00a0 \u0085\u0085 été"] * 20, 290)
    tokenizer.save(tmp_path)
    assert load(tmp_path).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("vocabulary", "merges", "message"),
    [
        ({"a": 0}, [], "255 tokens are missing"),
        (dict.fromkeys(byte_pair.byte_tokens(), 1), [], "ids must be different"),
        ({token: id_ for id_, token in enumerate(byte_pair.byte_tokens())}, [("a", "b")], "'ab'"),
    ],
)
def test_impossible_vocabularies_are_refused(vocabulary, merges, message):
    with pytest.raises(ValueError, match=message):
        BytePairTokenizer(vocabulary, merges)
