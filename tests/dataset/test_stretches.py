"""Long texts are cut where it changes nothing, for every kind of tokenizer."""

import random
import time

import pytest
from small_tokenizers import sentence_piece_model

from llama_exp.dataset.stretches import cut_blindly, divide, divide_blindly
from llama_exp.tokenizer.byte_pair import from_merges, train
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

WORDS = ["cost", "of", "a", "shape", "don't", "1234567", "x+=1;", "Straße", "naïve,", "(see", "below)", "—", "ends."]


def prose(seed, ends=(" ", "  ", "\n", "\n\n", "\t")):
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) + draw.choice(ends) for _ in range(4000))


TEXTS = {
    "prose": prose(0),
    "one line": prose(1, (" ",)),
    "chinese": "".join(random.Random(2).choices("的一是不了人我在有他这，。！\n", k=9000)),
    "no blanks": "".join(random.Random(3).choices("ACGT", k=9000)),
    "code": "if x:\n    y = [1, 2]\n\n\n" * 400,
    "blank lines": "a\n" + "\n" * 3000 + "b" + " " * 3000 + "c" * 3000,
}


@pytest.fixture(scope="module")
def tokenizers():
    texts = list(TEXTS.values())
    return {
        "bpe": train(texts, 700),
        "byte": from_merges([]),
        "sentencepiece": SentencePieceTokenizer(sentence_piece_model()),
    }


@pytest.mark.parametrize("text", [name for name in TEXTS if name != "blank lines"])
@pytest.mark.parametrize("kind", ["bpe", "byte", "sentencepiece"])
def test_stretches_give_the_tokens_of_the_whole(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    stretches = list(divide(TEXTS[text], tokenizer, 1000))
    assert len(stretches) > 5 and max(map(len, stretches)) <= 1000 and "".join(stretches) == TEXTS[text]
    ids = tokenizer.encode(stretches[0])
    for stretch in stretches[1:]:
        ids += tokenizer.encode(stretch, continuation=True)
    assert ids == tokenizer.encode(TEXTS[text])


def test_runs_of_one_character_are_cut_too(tokenizers):
    stretches = list(divide(TEXTS["blank lines"], tokenizers["bpe"], 1000))
    assert max(map(len, stretches)) <= 1000 and "".join(stretches) == TEXTS["blank lines"]


def test_without_a_tokenizer_words_stay_whole():
    text = "one two three four"
    assert [cut_blindly(text, limit) for limit in (18, 13, 12, 8, 3, 2)] == [13, 13, 7, 7, 3, 2]
    assert list(divide_blindly([text, "x"], 10)) == ["one two", " three", " four", "x"]


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in ("blank lines", "no blanks")])
def test_a_tokenizer_trained_on_stretches_is_the_same(monkeypatch, name):
    from llama_exp.tokenizer import byte_pair

    whole = train([TEXTS[name]], 400).fingerprint
    cut = lambda texts: divide_blindly(texts, 500)  # noqa: E731
    monkeypatch.setattr(byte_pair, "divide_blindly", cut)
    assert train([TEXTS[name]], 400).fingerprint == whole


@pytest.mark.parametrize("letters", ["ACGT", "a", " ", "+", "ä"])
def test_training_time_grows_as_the_text(letters):
    """Quadratic growth would be 64-fold for 8 times the text; the limit leaves room for a busy machine."""
    draw, seconds = random.Random(0), {}
    for size in (25_000, 200_000):
        text = "".join(draw.choice(letters) for _ in range(size))
        start = time.process_time()
        train([text], 300)
        seconds[size] = time.process_time() - start
    assert seconds[200_000] < 30 * max(seconds[25_000], 0.05)
