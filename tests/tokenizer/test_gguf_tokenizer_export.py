"""Tokenizers written into GGUF files: read back they give the same ids; what llama.cpp cannot do is refused."""

import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers
from gguf_texts import TEXTS
from sentencepiece import sentencepiece_model_pb2
from small_models import TEMPLATE
from small_tokenizers import sentence_piece_model
from tokenizers import models, pre_tokenizers

from llama_exp.errors import InputError
from llama_exp.formats.gguf.writer import write_gguf
from llama_exp.tokenizer import byte_pair, gguf_export, load
from llama_exp.tokenizer.hugging_face import HuggingFaceTokenizer
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

SENTENCES = ["the quick brown fox jumped over the lazy dog", "don't 123 4567 éé 漢字"] * 20


def read_back(tmp_path, tokenizer, num_embeddings=0):
    path = tmp_path / "m.gguf"
    metadata = gguf_export.describe(tokenizer, num_embeddings)
    write_gguf(path, metadata, {}, hashlib.sha256())
    return load(path), metadata


def hugging_face(split, special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"), **changes):
    """A tokenizer.json of byte-level BPE as others write it."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = split
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=list(byte_pair.byte_tokens()),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    document = json.loads(made.to_str())
    document["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    document["model"] |= changes.pop("model", {})
    config = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>", "chat_template": TEMPLATE}
    return HuggingFaceTokenizer(json.dumps(document | changes), config, {})


def smollm():
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return pre_tokenizers.Sequence(parts)


def tokenizers_of_ours():
    bpe = byte_pair.train(SENTENCES, 320)
    bpe.chat_template = TEMPLATE
    return {
        "byte": byte_pair.from_merges([]),
        "trained": bpe,
        "sentence_piece": SentencePieceTokenizer(sentence_piece_model(), TEMPLATE),
        "sentence_piece_without_begin": SentencePieceTokenizer(
            sentence_piece_model(), tokenizer_config={"add_bos_token": False}
        ),
        "smollm": hugging_face(smollm()),
        "gpt-2": hugging_face(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    }


@pytest.mark.parametrize("name", tokenizers_of_ours())
def test_read_back_it_gives_the_same_ids(name, tmp_path):
    tokenizer = tokenizers_of_ours()[name]
    read, metadata = read_back(tmp_path, tokenizer, tokenizer.vocabulary_size + 5)
    assert len(metadata["tokenizer.ggml.tokens"]) == tokenizer.vocabulary_size + 5
    for text in TEXTS:
        assert read.encode(text) == tokenizer.encode(text), text
        assert read.decode(read.encode(text)) == tokenizer.decode(tokenizer.encode(text))
        assert read.encode_with_special_tokens(text) == tokenizer.encode_with_special_tokens(text), text
    for attribute in ("bos_id", "eos_id", "begin_id", "chat_template"):
        assert getattr(read, attribute) == getattr(tokenizer, attribute), attribute
    assert set(tokenizer.stop_ids) <= set(read.stop_ids)


@pytest.mark.parametrize("name", tokenizers_of_ours())
def test_other_readers_read_it(name, tmp_path):
    """Also where there is not a single merge."""
    tokenizer = tokenizers_of_ours()[name]
    read_back(tmp_path, tokenizer, tokenizer.vocabulary_size)
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    assert len(fields["tokenizer.ggml.tokens"].data) == tokenizer.vocabulary_size
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_id
    assert fields["tokenizer.ggml.add_bos_token"].contents() == (tokenizer.begin_id is not None)
    kinds = {"sentence_piece": ("llama", "default"), "smollm": ("gpt2", "smollm"), "gpt-2": ("gpt2", "gpt-2")}
    kind = kinds.get(name.removesuffix("_without_begin"), ("gpt2", "llama-bpe"))
    assert tuple(fields[f"tokenizer.ggml.{key}"].contents() for key in ("model", "pre")) == kind


def test_our_own_split_is_llama_3s_whatever_it_was_trained_on(tmp_path):
    read, metadata = read_back(tmp_path, byte_pair.train(SENTENCES, 320))
    assert metadata["tokenizer.ggml.pre"] == "llama-bpe" and read.special_id("<|eot_id|>") is not None
    types = metadata["tokenizer.ggml.token_type"]
    assert (types == 3).sum() == len(byte_pair.SPECIAL_TOKENS) and types.dtype == np.int32


def test_a_tokenizer_json_over_a_sentence_piece_model(tmp_path):
    SentencePieceTokenizer(sentence_piece_model(), TEMPLATE).save_hugging_face(tmp_path / "hf")
    tokenizer = load(tmp_path / "hf")
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    read, _ = read_back(tmp_path, tokenizer)
    assert all(read.encode(text) == tokenizer.encode(text) for text in TEXTS)
    assert read.begin_id == tokenizer.begin_id
    (tmp_path / "hf/tokenizer.model").unlink()
    refused(load(tmp_path / "hf"), "no SentencePiece model beside it")


def refused(tokenizer, reason):
    with pytest.raises(InputError, match=reason) as caught:
        gguf_export.describe(tokenizer, 0)
    (problem,) = caught.value.problems
    assert "--format hf" in problem.action and problem.where == "--format gguf"


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split_by(pattern, behavior):
    split = {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": False}
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, BYTES]}}


WORDS = {"type": "WordLevel", "vocab": {"a": 0, "<|im_start|>": 1, "<|im_end|>": 2}, "unk_token": "a"}
CHANGES = {
    "another split": (split_by({"Regex": "x+"}, "Isolated"), r"no name for: 'x\+'"),
    "another behaviour": (split_by({"String": " "}, "Removed"), "splits text into words by"),
    "a space in front": ({"pre_tokenizer": BYTES | {"add_prefix_space": True}}, "splits text into words by"),
    "a normalizer": ({"normalizer": {"type": "NFC"}}, "changes the text"),
    "no BPE at all": ({"model": WORDS}, "no byte-level BPE"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_llama_cpp_cannot_do_is_refused(case):
    changes, reason = CHANGES[case]
    tokenizer = hugging_face(smollm())
    document = json.loads(json.dumps(tokenizer.document)) | changes
    if case == "no BPE at all":
        document |= {"added_tokens": [], "pre_tokenizer": None, "decoder": None}
    config = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    refused(HuggingFaceTokenizer(json.dumps(document), config, {}), reason)


def test_other_refusals():
    plain = hugging_face(smollm())
    document = plain.document
    document["added_tokens"][0]["lstrip"] = True
    refused(HuggingFaceTokenizer(json.dumps(document), {"eos_token": "<|im_end|>"}, {}), "flags lstrip")
    refused(HuggingFaceTokenizer(json.dumps(plain.document), {"bos_token": "<|im_start|>"}, {}), "no token that ends")
    refused(object.__new__(Path), "class of your own")


def words_that_differ():
    """`ab` is a token that no merge makes."""
    document = hugging_face(smollm()).document
    document["model"]["vocab"]["zqx"] = max(document["model"]["vocab"].values()) + 1
    document["model"]["ignore_merges"] = True
    return document


def test_words_that_are_tokens_as_a_whole():
    config = {"eos_token": "<|im_end|>"}
    refused(HuggingFaceTokenizer(json.dumps(words_that_differ()), config, {}), "a token as a whole")
    document = hugging_face(smollm()).document
    document["model"]["ignore_merges"] = True  # changes nothing: merges make every word
    assert gguf_export.describe(HuggingFaceTokenizer(json.dumps(document), config, {}), 0)


def changed_model(**changes):
    model = sentencepiece_model_pb2.ModelProto.FromString(sentence_piece_model())
    for name, value in changes.items():
        part, _, key = name.partition("__")
        setattr(getattr(model, part), key, value)
    return model


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalizer_spec__remove_extra_whitespaces": True}, "changes the text"),
        ({"trainer_spec__treat_whitespace_as_suffix": True}, "space behind"),
        ({"trainer_spec__model_type": 1}, "not BPE"),
    ],
)
def test_sentence_piece_models_that_llama_cpp_cannot_run(changes, reason):
    refused(SentencePieceTokenizer(changed_model(**changes).SerializeToString()), reason)


def test_sentence_piece_models_with_other_pieces():
    model = changed_model()
    model.pieces[300].type = model.pieces[300].UNUSED
    refused(SentencePieceTokenizer(model.SerializeToString()), "unused")
    model = changed_model(trainer_spec__byte_fallback=False)
    for piece in model.pieces:
        if piece.type == piece.BYTE:
            piece.type = piece.NORMAL
    refused(SentencePieceTokenizer(model.SerializeToString()), "no token for each byte")


def test_stop_tokens_that_llama_cpp_sees_otherwise_are_told(caplog):
    tokenizer = hugging_face(smollm(), ("<|im_start|>", "<|im_end|>", "<a>", "<b>", "<c>", "</s>"))
    tokenizer.stop_ids = tuple(tokenizer.special_id(name) for name in ("<|im_end|>", "<a>", "<b>", "<c>"))
    metadata = gguf_export.describe(tokenizer, 0)
    assert metadata["tokenizer.ggml.eot_token_id"] == tokenizer.special_id("<a>")
    assert metadata["tokenizer.ggml.eom_token_id"] == tokenizer.special_id("<b>")
    assert "will not stop at <c>" in caplog.text and "will also stop at </s>" in caplog.text
