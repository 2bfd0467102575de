"""Tokenizers in GGUF files give the ids of the tokenizers they were made from."""

import json

import numpy as np
import pytest
import tokenizers
from gguf_texts import TEXTS
from gguf_writer import gguf_bytes
from sentencepiece import sentencepiece_model_pb2
from small_tokenizers import sentence_piece_model
from tokenizers import models, pre_tokenizers

from llama_exp.errors import InputError
from llama_exp.tokenizer import byte_pair, load
from llama_exp.tokenizer.assets import has_tokenizer
from llama_exp.tokenizer.hugging_face import HuggingFaceTokenizer
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def written(tmp_path, metadata):
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes({f"tokenizer.{key}": value for key, value in metadata.items()}, {}))
    return path


def rejection(path):
    with pytest.raises(InputError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert problem.where == str(path) and problem.action
    return f"{problem.what} | {problem.found}"


def sentence_piece_metadata(proto):
    model = sentencepiece_model_pb2.ModelProto.FromString(proto)
    return {
        "ggml.model": "llama",
        "ggml.pre": "default",
        "ggml.tokens": [piece.piece for piece in model.pieces],
        "ggml.scores": np.array([piece.score for piece in model.pieces], "f4"),
        "ggml.token_type": np.array([piece.type for piece in model.pieces], "i4"),
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
        "ggml.unknown_token_id": 0,
        "ggml.padding_token_id": 0,  # as Llama 2's files have it
        "ggml.add_bos_token": True,
        "chat_template": TEMPLATE,
    }


class TestSentencePiece:
    proto = sentence_piece_model()

    def test_ids_are_the_models(self, tmp_path):
        path = written(tmp_path, sentence_piece_metadata(self.proto))
        ours, original = load(path), SentencePieceTokenizer(self.proto)
        assert isinstance(ours, SentencePieceTokenizer) and has_tokenizer(path)
        for continuation in (False, True):
            assert ours.encode_batch(TEXTS, continuation) == original.encode_batch(TEXTS, continuation)
        assert len({id_ for row in ours.encode_batch(TEXTS) for id_ in row}) > 50
        for text in TEXTS:
            assert ours.decode(ours.encode(text)) == original.decode(original.encode(text))
        for name in ("vocabulary_size", "bos_id", "eos_id", "begin_id", "stop_ids"):
            assert getattr(ours, name) == getattr(original, name), name
        assert ours.pad_id == 0
        assert ours.special_id("</s>") == 2
        assert ours.chat_template == TEMPLATE

    def test_without_a_space_in_front(self, tmp_path):
        path = written(tmp_path, sentence_piece_metadata(self.proto) | {"ggml.add_space_prefix": False})
        original = SentencePieceTokenizer(self.proto)
        assert load(path).encode_batch(TEXTS) == original.encode_batch(TEXTS, continuation=True)

    def test_added_tokens_keep_their_types(self, tmp_path):
        metadata = sentence_piece_metadata(self.proto)
        added = {"<|user|>": 4, "<|eot_id|>": 3, "[PAD]": 5}
        count = len(metadata["ggml.tokens"])
        metadata["ggml.tokens"] = metadata["ggml.tokens"] + list(added)
        metadata["ggml.scores"] = np.append(metadata["ggml.scores"], np.float32([-1000] * 3))
        metadata["ggml.token_type"] = np.append(metadata["ggml.token_type"], np.int32(list(added.values())))
        metadata["ggml.eot_token_id"] = count + 1
        tokenizer = load(written(tmp_path, metadata))
        assert count in tokenizer.encode("a <|user|> b")
        assert not {count + 1, count + 2} & set(tokenizer.encode("a <|eot_id|> [PAD]"))
        assert tokenizer.special_id("<|eot_id|>") == count + 1
        assert tokenizer.stop_ids == (2, count + 1, count + 2) and tokenizer.vocabulary_size == count + 3

    def test_saved_and_loaded(self, tmp_path):
        tokenizer = load(written(tmp_path, sentence_piece_metadata(self.proto)))
        tokenizer.save(tmp_path / "saved")
        again = load(tmp_path / "saved")
        assert again.fingerprint == tokenizer.fingerprint and again.chat_template == TEMPLATE

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"ggml.scores": np.zeros(3, "f4")}, "each token needs a score"),
            ({"ggml.scores": ["a"]}, "scores must be an array of numbers"),
            ({"ggml.token_type": np.ones(3, "i4")}, "each token needs a type"),
            ({"ggml.tokens": []}, "each token needs a type | 0 tokens"),
            ({"ggml.bos_token_id": 10**6}, "bos_token_id is not in the vocabulary | 1000000 of"),
            ({"ggml.eot_token_id": 10**6}, "eot_token_id is not in the vocabulary"),
            ({"ggml.precompiled_charsmap": np.zeros(4, "u1")}, "changes the text is not supported"),
        ],
    )
    def test_wrong_metadata(self, tmp_path, change, expected):
        assert expected in rejection(written(tmp_path, sentence_piece_metadata(self.proto) | change))

    @pytest.mark.parametrize(
        ("index", "token", "type_", "score"),
        [(5, "<s>", 3, 0), (300, "the", 7, 0), (0, "<unk>", 1, 0), (300, "", 1, 0), (300, "x", 1, np.nan)],
        ids=["token twice", "unknown type", "no unknown token", "empty token", "score not a number"],
    )
    def test_wrong_tokens(self, tmp_path, index, token, type_, score):
        metadata = sentence_piece_metadata(self.proto)
        metadata["ggml.tokens"][index] = token
        metadata["ggml.token_type"][index] = type_
        del metadata["ggml.unknown_token_id"]
        metadata["ggml.scores"][index] = score
        assert rejection(written(tmp_path, metadata))


@pytest.fixture(scope="module")
def trained():
    """Bytes, merges and Llama 3's special tokens; trained without a split, so that merges cross every border."""
    encoder = tokenizers.Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=list(byte_pair.byte_tokens()), show_progress=False
    )
    encoder.train_from_iterator((text.replace("<|eot_id|>", "") for text in TEXTS), trainer)
    model = json.loads(encoder.to_str())["model"]
    merges = [" ".join(pair) for pair in model["merges"]]
    tokens = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    return tokens, merges


def byte_pair_metadata(trained, split):
    tokens, merges = trained
    special = list(byte_pair.SPECIAL_TOKENS)
    count = len(tokens)
    return {
        "ggml.model": "gpt2",
        "ggml.pre": split,
        "ggml.tokens": [*tokens, *special],
        "ggml.token_type": np.array([1] * count + [3] * len(special), "i4"),
        "ggml.merges": merges,
        "ggml.bos_token_id": count,
        "ggml.eos_token_id": count + 4,
        "ggml.padding_token_id": count + 5,
        "ggml.eom_token_id": count + 1,
        "chat_template": TEMPLATE,
    }


def reference(trained, split):
    """The tokenizers library with the split that the models of that name were published with."""
    tokens, merges = trained
    vocabulary = {token: id_ for id_, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    whole = split == "llama-bpe"
    encoder = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=whole))
    by_regex = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.pre_tokenizer = {
        "gpt-2": by_regex,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), by_regex]),
        "llama-bpe": pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(byte_pair.SPLIT_PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
    }[split]
    return encoder


class TestBytePair:
    @pytest.mark.parametrize("split", ["gpt-2", "smollm", "llama-bpe"])
    def test_ids_are_those_of_the_published_split(self, tmp_path, trained, split):
        path = written(tmp_path, byte_pair_metadata(trained, split))
        tokenizer, encoder = load(path), reference(trained, split)
        assert isinstance(tokenizer, HuggingFaceTokenizer) and has_tokenizer(path)
        for text in TEXTS:
            assert tokenizer.encode(text) == encoder.encode(text, add_special_tokens=False).ids, repr(text)
            assert tokenizer.decode(tokenizer.encode(text)) == text

    def test_the_splits_differ(self, tmp_path, trained):
        rows = {
            split: str(load(written(tmp_path, byte_pair_metadata(trained, split))).encode_batch(TEXTS))
            for split in ("gpt-2", "smollm", "llama-bpe", "default", "llama3")
        }
        assert rows.pop("llama3") == rows["llama-bpe"]
        assert len(set(rows.values())) == 4

    @pytest.mark.parametrize(
        ("split", "expected"),
        [
            ("gpt-2", ["it", "'s", " 12345", "+=", "6", " \n", " x"]),
            ("smollm", ["it", "'s", " ", "1", "2", "3", "4", "5", "+=", "6", " \n", " x"]),
            ("llama-bpe", ["it", "'s", " ", "123", "45", "+=", "6", " \n", " x"]),
            ("default", ["it", "'", "s", " ", "123", "45", "+=", "6", " \n", " x"]),
        ],
    )
    def test_words(self, tmp_path, trained, split, expected):
        tokenizer = load(written(tmp_path, byte_pair_metadata(trained, split)))
        words = tokenizer._encoder.pre_tokenizer.pre_tokenize_str("it's 12345+=6 \n x")
        assert [word.replace("Ġ", " ").replace("Ċ", "\n") for word, _ in words] == expected

    def test_special_tokens_and_what_goes_along(self, tmp_path, trained):
        count = len(trained[0])
        tokenizer = load(written(tmp_path, byte_pair_metadata(trained, "llama-bpe")))
        assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (count, count + 4, count + 5)
        named = trained[0].index("</s>")  # a merge of the training text; llama.cpp goes by its name
        assert tokenizer.stop_ids == (count + 4, count + 1, named)
        assert tokenizer.vocabulary_size == count + 6
        assert tokenizer.chat_template == TEMPLATE
        assert tokenizer.generation_config["eos_token_id"] == [count + 4, count + 1, named]
        assert count + 4 not in tokenizer.encode("a<|eot_id|>b")
        assert count + 4 in tokenizer.encode_with_special_tokens("a<|eot_id|>b")

    @pytest.mark.parametrize("begin", [True, False])
    def test_saved_for_hugging_face_and_loaded(self, tmp_path, trained, begin):
        metadata = byte_pair_metadata(trained, "smollm") | {"ggml.add_bos_token": begin}
        tokenizer = load(written(tmp_path, metadata))
        tokenizer.save_hugging_face(tmp_path / "saved")
        again = load(tmp_path / "saved")
        assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
        for name in ("bos_id", "eos_id", "pad_id", "stop_ids", "chat_template"):
            assert getattr(again, name) == getattr(tokenizer, name), name
        theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "saved" / "tokenizer.json"))
        assert (theirs.encode("the").ids[0] == tokenizer.bos_id) is begin

    def test_user_defined_tokens_are_found_in_text(self, tmp_path, trained):
        metadata = byte_pair_metadata(trained, "smollm")
        count = len(metadata["ggml.tokens"])
        metadata["ggml.tokens"].append("<repo name>")
        metadata["ggml.token_type"] = np.append(metadata["ggml.token_type"], np.int32(4))
        tokenizer = load(written(tmp_path, metadata))
        assert count in tokenizer.encode("a<repo name>b") and tokenizer.special_id("<repo name>") is None
        assert tokenizer.decode(tokenizer.encode("a<repo name>b")) == "a<repo name>b"

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"ggml.pre": "qwen2"}, "splits text into words is not supported | tokenizer.ggml.pre qwen2"),
            ({"ggml.pre": ""}, "no tokenizer.ggml.pre"),
            ({"ggml.merges": ["a b c"]}, "a merge is not a pair | 'a b c'"),
            ({"ggml.merges": ["ab"]}, "a merge is not a pair | 'ab'"),
            ({"ggml.merges": ["漢 漢"]}, "not a usable tokenizer"),
            ({"ggml.tokens": ["a", "b", "a"], "ggml.token_type": [1, 1, 1]}, "a token is there twice | 'a'"),
            ({"ggml.token_type": np.ones(3, "i4")}, "each token needs a type"),
            ({"ggml.eos_token_id": 10**6}, "eos_token_id is not in the vocabulary"),
            ({"ggml.model": "bert"}, "this tokenizer is not supported | bert"),
            ({"ggml.model": 3}, "tokenizer.ggml.model must be a string"),
            ({"chat_template": 3}, "tokenizer.chat_template must be a string"),
        ],
    )
    def test_wrong_metadata(self, tmp_path, trained, change, expected):
        assert expected in rejection(written(tmp_path, byte_pair_metadata(trained, "smollm") | change))


def test_a_file_without_tokenizer(tmp_path):
    path = written(tmp_path, {})
    assert not has_tokenizer(path)
    assert "no tokenizer.ggml.model" in rejection(path)


@pytest.mark.parametrize("name", ["none.gguf", "text"])
def test_what_is_no_gguf_file_is_refused(tmp_path, name):
    (tmp_path / "text").write_text("not a model")
    with pytest.raises(InputError):
        load(tmp_path / name)
