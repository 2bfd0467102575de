"""Records -> rows: masks, overlong documents, checks, accounting."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import prepared
from small_tokenizers import sentence_piece_model

from llama_exp.dataset.records import BOS, EOS, Piece, Record, document, pair
from llama_exp.errors import InputError
from llama_exp.limits.dataset import Packing
from llama_exp.tokenizer.byte_pair import from_merges
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

BYTE = from_merges([])


def segments(examples):
    """(token ids, labels, loss mask) of each segment of each row."""
    batch = examples.batch(np.arange(len(examples)))
    for row in range(len(examples)):
        for number in range(1, batch["segment_ids"][row].max() + 1):
            here = batch["segment_ids"][row] == number
            assert np.array_equal(batch["position_ids"][row][here], np.arange(here.sum()))
            yield tuple(batch[name][row][here].tolist() for name in ("token_ids", "labels", "loss_mask"))


def pairs(examples):
    """Every (token, label) that counts, as a sorted list."""
    return sorted(
        (token, label)
        for tokens, labels, mask in segments(examples)
        for token, label, counts in zip(tokens, labels, mask, strict=True)
        if counts
    )


def wanted_pairs(texts):
    ids = [[BYTE.bos_id, *text.encode(), BYTE.eos_id] for text in texts]
    return sorted(pair for document in ids for pair in zip(document, document[1:], strict=False))


@settings(max_examples=25, deadline=None)  # each example writes through to the disk
@given(texts=st.lists(st.text("abcdefgh", min_size=1, max_size=20), min_size=5, max_size=20))
def test_packed_and_unpacked_train_on_the_same_targets(texts, tmp_path_factory):
    train_texts = [text for number, text in enumerate(texts) if number % 5 != 4]
    for packing in Packing:
        examples = prepared(texts, BYTE, tmp_path_factory.mktemp("cache"), packing=packing)["train"]
        assert pairs(examples) == wanted_pairs(train_texts)
        assert examples.num_target_tokens == len(wanted_pairs(train_texts))
        assert examples.num_documents == len(train_texts)


def test_a_plain_document_row_by_row(tmp_path, byte_tokenizer):
    texts = ["abc", "de", "f", "g", "validation"]
    batch = prepared(texts, byte_tokenizer, tmp_path, packing="concat")["train"].batch(np.array([1, 0]))
    bos, eos, pad = byte_tokenizer.bos_id, byte_tokenizer.eos_id, byte_tokenizer.pad_id
    a, b, c, d, e, f, g = b"abcdefg"
    assert batch["token_ids"].tolist() == [
        [eos, bos, f, eos, bos, g, eos, pad],
        [bos, a, b, c, eos, bos, d, e],
    ]
    assert batch["labels"].tolist() == [[0, f, eos, 0, g, eos, 0, 0], [a, b, c, eos, 0, d, e, eos]]
    assert batch["loss_mask"].tolist() == [[0, 1, 1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 0, 1, 1, 1]]
    assert batch["segment_ids"].tolist() == [[1, 2, 2, 2, 3, 3, 3, 0], [1, 1, 1, 1, 1, 2, 2, 2]]
    assert batch["position_ids"].tolist() == [[0, 0, 1, 2, 0, 1, 2, 0], [0, 1, 2, 3, 4, 0, 1, 2]]
    assert batch["padding_mask"].tolist() == [[1] * 7 + [0], [1] * 8]
    assert {name: array.dtype.name for name, array in batch.items()} == {
        "token_ids": "int32",
        "position_ids": "int32",
        "segment_ids": "int32",
        "padding_mask": "int32",
        "labels": "int32",
        "loss_mask": "float32",
    }


@pytest.mark.parametrize("packing", Packing)
@pytest.mark.parametrize(("loss_on", "prompt_counts"), [("completion", 0), ("all", 1)])
def test_prompt_masks_are_exact(tmp_path, byte_tokenizer, packing, loss_on, prompt_counts):
    records = [pair(f"#{n}", "ask", "sayx") for n in range(5)]
    examples = prepared(records, byte_tokenizer, tmp_path, loss_on, packing=packing, sequence_length=9)["train"]
    expected = [byte_tokenizer.bos_id, *b"asksayx", byte_tokenizer.eos_id]
    for tokens, labels, mask in segments(examples):
        if tokens[0] != byte_tokenizer.bos_id:
            continue  # concat: the rest of a document that was cut
        assert tokens == expected[: len(tokens)]
        assert labels[:-1] == tokens[1:]
        # The label of the prompt's last token is the completion's first: it counts.
        assert mask[:3] == [prompt_counts] * 3
        assert mask[3:-1] == [1] * len(mask[3:-1])
    assert examples.num_target_tokens == 4 * (5 + 3 * prompt_counts)


def test_long_documents_are_split_without_losing_a_target(tmp_path, byte_tokenizer):
    texts = ["abcdefghijklmnopqrstuvw", "xy", "xy", "xy", "validation"]
    for packing in Packing:
        examples = prepared(texts, byte_tokenizer, tmp_path, packing=packing)["train"]
        assert pairs(examples) == wanted_pairs(texts[:4])
        assert examples.facts["overlong"] == 1


def test_truncate_keeps_the_first_tokens(tmp_path, byte_tokenizer):
    texts = ["abcdefghijkl", "x", "x", "x", "v"]
    examples = prepared(texts, byte_tokenizer, tmp_path, packing="none", overlong="truncate")["train"]
    rows = examples.batch(np.arange(4))
    assert rows["token_ids"][0].tolist() == [byte_tokenizer.bos_id, *b"abcdefg"]
    assert rows["loss_mask"][0].tolist() == [1] * 7 + [0]  # the token behind the cut is no target


def test_drop_leaves_long_documents_out_and_says_so(tmp_path, byte_tokenizer, caplog):
    caplog.set_level(logging.INFO, "llama_exp")
    texts = ["abcdefghijkl", "x", "x", "x", "v"]
    examples = prepared(texts, byte_tokenizer, tmp_path, packing="none", overlong="drop")["train"]
    assert (len(examples), examples.facts["overlong_dropped"], examples.facts["masked"]) == (3, 1, 0)
    assert "1 documents (25.0 %) are longer than 8 tokens (overlong=drop)" in caplog.text


def test_error_names_the_document(tmp_path, byte_tokenizer):
    with pytest.raises(InputError) as caught:
        prepared(["x", "abcdefghijkl", "x", "x", "v"], byte_tokenizer, tmp_path, overlong="error")
    (problem,) = caught.value.problems
    assert "record #1" in problem.where and "14 tokens" in problem.found and "dataset.overlong" in problem.action


def test_documents_without_text_or_target_are_counted_and_dropped(tmp_path, byte_tokenizer, caplog):
    no_target = Record("#x", (BOS, Piece("prompt", counts=False)), "g")
    records = ["abc", "  ", no_target, "abc", "v"]
    examples = prepared(records, byte_tokenizer, tmp_path)["train"]
    assert {name: examples.facts[name] for name in ("documents", "empty", "masked")} == {
        "documents": 4,
        "empty": 1,
        "masked": 1,
    }
    assert pairs(examples) == wanted_pairs(["abc", "abc"])
    assert "1 documents (25.0 %) hold no text" in caplog.text
    assert "1 documents (25.0 %) have no target" in caplog.text


def test_no_row_is_without_a_target(tmp_path, byte_tokenizer, caplog):
    records = [pair(f"#{n}", "p" * 30, "cc") for n in range(5)]
    for packing in Packing:
        examples = prepared(records, byte_tokenizer, tmp_path, packing=packing)["train"]
        assert (examples.batch(np.arange(len(examples)))["loss_mask"].sum(axis=1) > 0).all()
        assert examples.num_target_tokens == 4 * 3
        assert examples.facts["masked_pieces"] > 0
    assert "have no target of the loss and are dropped" in caplog.text


class Broken:
    """A tokenizer that gives one id it should not."""

    vocabulary_size, begin_id, eos_id, pad_id, stop_ids, fingerprint = 262, 256, 257, None, (257,), "broken"

    def __init__(self, bad):
        self.bad = bad
        self.fingerprint = f"broken {bad}"

    def encode_batch(self, texts, continuation=False):
        return [[self.bad if byte == ord("!") else byte for byte in text.encode()] for text in texts]

    def special_id(self, token):
        return None


@pytest.mark.parametrize("bad", [262, -1, 2**31])
def test_ids_outside_the_vocabulary_are_refused(tmp_path, bad):
    with pytest.raises(InputError) as caught:
        prepared(["ok", "no!", "ok", "ok", "v"], Broken(bad), tmp_path)
    (problem,) = caught.value.problems
    assert problem.where == "dataset in_memory, split train, record #1, token 3"
    assert problem.found == f"id {bad}, vocabulary_size 262"
    assert "0 .. 261" in problem.action


def test_without_a_pad_token_padding_is_zero(tmp_path):
    rows = prepared(["ok"] * 5, Broken(0), tmp_path, packing="none")["train"].batch(np.array([0]))
    assert rows["token_ids"][0].tolist() == [256, *b"ok", 257, 0, 0, 0, 0]


def test_a_turn_that_ends_with_a_stop_token_gets_no_second_end(tmp_path, byte_tokenizer):
    eot = byte_tokenizer.special_id("<|eot_id|>")
    record = Record("#", (BOS, Piece("a"), Piece("<|eot_id|>", token="<|eot_id|>"), EOS), "g")
    examples = prepared([record] * 5, byte_tokenizer, tmp_path, packing="none")["train"]
    row = examples.batch(np.array([0]))["token_ids"][0]
    assert row[:4].tolist() == [byte_tokenizer.bos_id, ord("a"), eot, byte_tokenizer.pad_id]


def test_a_special_token_that_the_tokenizer_lacks_becomes_text(tmp_path, byte_tokenizer):
    record = Record("#", (BOS, Piece("<|im_end|>", token="<|im_end|>"), EOS), "g")
    full = Record("#", (*record.pieces, Piece("a")), "g")  # a record needs text of its own
    row = prepared([full] * 5, byte_tokenizer, tmp_path, packing="none", sequence_length=16)["train"]
    tokens = row.batch(np.array([0]))["token_ids"][0]
    assert tokens[:13].tolist() == [byte_tokenizer.bos_id, *b"<|im_end|>", byte_tokenizer.eos_id, ord("a")]


def test_text_is_encoded_as_if_it_were_one_string(tmp_path):
    tokenizer = SentencePieceTokenizer(sentence_piece_model())
    split = [pair(f"#{n}", "the quick", " fox jumped") for n in range(5)]
    whole = [document(f"#{n}", "the quick fox jumped") for n in range(5)]
    options = {"tokenizer": tokenizer, "cache_dir": tmp_path, "packing": "none", "sequence_length": 32}
    first, second = (prepared(records, **options)["train"].batch(np.arange(4)) for records in (split, whole))
    assert np.array_equal(first["token_ids"], second["token_ids"])
    assert first["loss_mask"].sum() < second["loss_mask"].sum()


@pytest.mark.parametrize(("vocabulary_size", "dtype"), [(256, "uint8"), (65536, "uint16"), (65537, "uint32")])
def test_ids_are_stored_in_the_smallest_type(tmp_path, vocabulary_size, dtype):
    tokenizer = Broken(0)
    tokenizer.vocabulary_size, tokenizer.begin_id, tokenizer.eos_id = vocabulary_size, None, None
    prepared(["ok ok"] * 5, tokenizer, tmp_path)
    (file,) = tmp_path.glob("examples/*/train/token_ids.npy")
    assert np.load(file).dtype == dtype
    assert np.load(file.with_name("segment_ids.npy")).dtype == "uint16"


def test_many_documents_go_through_every_chunk(tmp_path, byte_tokenizer, monkeypatch):
    from llama_exp.dataset import row_files, rows

    monkeypatch.setattr(rows, "_RECORDS_AT_ONCE", 3)
    monkeypatch.setattr(row_files, "_TOKENS_AT_ONCE", 20)
    texts = [f"document {number}" for number in range(25)]
    examples = prepared(texts, byte_tokenizer, tmp_path)["train"]
    assert pairs(examples) == wanted_pairs([text for number, text in enumerate(texts) if number % 5 != 4])
