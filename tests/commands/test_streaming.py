"""Text that comes token by token is the text of all tokens; nothing is written too early, twice or late."""

import io
import random

import pytest
from small_tokenizers import sentence_piece_model

from llama_exp.commands.streaming import TextStream
from llama_exp.tokenizer import byte_pair
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

TEXTS = ["Über 3 Bäume", "the quick brown fox", " the fox  a", "東京 🦊 done", "a\n\n b", ""]
TOKENIZERS = {
    "bytes": lambda: byte_pair.from_merges([]),
    "byte pairs": lambda: byte_pair.train(["the quick brown fox", "Über alle Bäume"] * 9, 300),
    "sentence pieces": lambda: SentencePieceTokenizer(sentence_piece_model()),
}


class Pipe(io.StringIO):
    """What a reader of a pipe has at hand: everything up to the last flush."""

    read_so_far = ""

    def flush(self):
        self.read_so_far = self.getvalue()


@pytest.fixture
def pipe():
    return Pipe()


@pytest.fixture(params=TOKENIZERS, scope="module")
def tokenizer(request):
    return TOKENIZERS[request.param]()


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_whole_text(tokenizer, text, pipe):
    ids = tokenizer.encode(text)
    for seed in range(5):
        pipe.truncate(0)
        pipe.seek(0)
        stream, rest, chance = TextStream(pipe, tokenizer), list(ids), random.Random(seed)
        while rest:
            size = chance.randint(1, 3)
            stream.add(rest[:size])
            rest = rest[size:]
            assert tokenizer.decode(ids).startswith(pipe.read_so_far.rstrip("\n"))
        assert stream.finish() == tokenizer.decode(ids)
        assert pipe.read_so_far == tokenizer.decode(ids) + "\n"


def test_every_token_is_written_at_once(pipe):
    tokenizer = byte_pair.from_merges([])
    stream = TextStream(pipe, tokenizer)
    for number, token in enumerate(tokenizer.encode("abc"), start=1):
        stream.add([token])
        assert pipe.read_so_far == "abc"[:number]
    stream.add(tokenizer.encode("é")[:1])  # half a character waits for its other half
    assert pipe.read_so_far == "abc"
    stream.add(tokenizer.encode("é")[1:])
    assert pipe.read_so_far == "abcé"


def test_half_a_character_at_the_end_is_shown(pipe):
    tokenizer = byte_pair.from_merges([])
    stream = TextStream(pipe, tokenizer)
    stream.add(tokenizer.encode("aé")[:-1])
    assert stream.finish() == "a\ufffd" and pipe.read_so_far == "a\ufffd\n"


def test_an_end_that_is_written_out_is_held_back(pipe):
    tokenizer = byte_pair.from_merges([])
    stream = TextStream(pipe, tokenizer, ["<|end|>"], strips=True)
    for token in tokenizer.encode("  yes <|e <"):
        stream.add([token])
    assert pipe.read_so_far == "yes <|e" and not stream.ended
    for token in tokenizer.encode("|end|> never"):
        stream.add([token])
    assert stream.ended and stream.finish() == "yes <|e"
    assert pipe.read_so_far == "yes <|e\n"
