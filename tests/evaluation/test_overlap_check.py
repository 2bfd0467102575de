"""Training rows as texts, the search that costs once, and what it tells."""

import logging

import numpy as np
import pytest
from in_memory import prepared
from small_tokenizers import sentence_piece_model

from llama_exp.evaluation import overlap_check
from llama_exp.evaluation.item_texts import item_texts
from llama_exp.evaluation.overlap import FEWEST_WORDS, NGRAM_WORDS, ItemOverlap, Overlap, find_overlap, split_words
from llama_exp.evaluation.overlap_check import check_overlap, row_texts, rows_of, tell
from llama_exp.tokenizer.byte_pair import from_merges
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

BYTE = from_merges([])
OTHER = "there is nothing at all of this sentence in any of the rows of the training data"


def words(count, seed):
    generator = np.random.default_rng(seed)
    return " ".join(f"w{number}" for number in generator.integers(0, 500, count))


@pytest.fixture(scope="module", params=["concat", "best_fit"])
def train(request, tmp_path_factory):
    """Documents, most of them longer than a row of 64 bytes, and their training rows."""
    texts = [words(count, seed) for seed, count in enumerate((90, 5, 40, 17, 60, 3, 25, 11))]
    cache = tmp_path_factory.mktemp("cache")
    rows = prepared(texts, BYTE, cache, packing=request.param, sequence_length=64)["train"]
    kept = [text for number, text in enumerate(texts) if number % 5 != 4]
    return kept, rows


def test_a_document_is_found_whole_though_rows_cut_it(train, request):
    texts, rows = train
    found = find_overlap(row_texts(rows, BYTE), texts)
    if request.node.callspec.params["train"] == "concat":
        assert [item.share for item in found.items if item.words >= FEWEST_WORDS] == [1.0] * found.judged
        assert found.judged == sum(len(text.split()) >= FEWEST_WORDS for text in texts) > 3
    else:  # its pieces stand in rows of other documents: what is inside of a row is found
        assert found.overlapping >= found.judged - 1


def test_only_what_stands_in_a_document_is_found(train):
    """A row's texts are stretches of documents: nothing is joined that was apart."""
    texts, rows = train
    documents = [split_words(text) for text in texts]
    for row in row_texts(rows, BYTE):
        for text in row:
            inner = split_words(text)[1:-1]  # the first and last word may be cut
            runs = [document[start : start + len(inner)] for document in documents for start in range(len(document))]
            assert inner in runs or not inner


def test_every_row_comes_once(train, monkeypatch):
    texts, rows = train
    expected = list(row_texts(rows, BYTE))
    assert len(expected) == len(rows)
    monkeypatch.setattr(overlap_check, "_ROWS_AT_ONCE", 3)
    assert list(row_texts(rows, BYTE)) == expected


def test_the_rows_are_read_once_for_the_same_items(train, tmp_path, monkeypatch):
    texts, rows = train
    items = {"seen": [texts[0], OTHER], "unseen": [OTHER]}
    first = check_overlap(rows, BYTE, items, str(tmp_path))
    assert (first["seen"].overlapping, first["seen"].judged) == (1, 2)
    assert first["seen"].worst(3) == [0]
    assert first["unseen"].share == 0.0
    monkeypatch.setattr(overlap_check, "row_texts", lambda *arguments: pytest.fail("read again"))
    assert check_overlap(rows, BYTE, items, str(tmp_path)) == first
    with pytest.raises(pytest.fail.Exception, match="read again"):
        check_overlap(rows, BYTE, items | {"new": [texts[0]]}, str(tmp_path))


def test_a_damaged_cache_is_made_again(train, tmp_path):
    texts, rows = train
    first = check_overlap(rows, BYTE, {"quiz": [texts[0]]}, str(tmp_path))
    (manifest,) = (tmp_path / "overlap").glob("*/manifest.json")
    manifest.write_text("{")
    assert check_overlap(rows, BYTE, {"quiz": [texts[0]]}, str(tmp_path)) == first


@pytest.mark.parametrize("tokenizer", [BYTE, SentencePieceTokenizer(sentence_piece_model())], ids=["bytes", "pieces"])
def test_the_table_of_pieces_gives_the_tokenizers_words(tokenizer):
    generator = np.random.default_rng(0)
    decode = overlap_check._Pieces(tokenizer).decode
    for _ in range(200):
        token_ids = generator.integers(0, tokenizer.vocabulary_size, generator.integers(1, 30)).tolist()
        assert split_words(decode(token_ids)) == split_words(tokenizer.decode(token_ids))
    for text in ("The quick  brown fox\n\tjumps", "naïve 漢字 🙂 end", ""):
        token_ids = tokenizer.encode(text)
        assert split_words(decode(token_ids)) == split_words(text)


def overlap_of(*shares):
    return Overlap(NGRAM_WORDS, tuple(ItemOverlap(20, share, 7, "so many words") for share in shares))


@pytest.mark.parametrize(
    ("shares", "level", "told"),
    [
        ([0.2, 1.0, 0.0], logging.WARNING, "2 of 3 items share 13 words in a row with the training rows, worst item 1"),
        ([0.2] + [0.0] * 200, logging.INFO, "1 of 201 items"),
        ([0.0, None], logging.INFO, "no 13 words in a row of its 1 items"),
        ([None], logging.INFO, "too short"),
        ([], logging.INFO, "too short"),
    ],
)
def test_a_person_is_told(caplog, shares, level, told):
    with caplog.at_level(logging.INFO):
        tell("quiz", overlap_of(*shares))
    (record,) = caplog.records
    assert record.levelno == level
    assert told in record.getMessage()


def test_the_file_has_the_items_with_an_overlap_the_worst_first():
    rows = rows_of(overlap_of(0.2, None, 1.0, 0.0))
    assert [(row["item"], row["share"], row["row"]) for row in rows] == [(2, 1.0, 7), (0, 0.2, 7)]


def test_texts_of_items_leave_out_what_stands_in_front_of_all():
    solved = "Two and two? four\n\nOne and two? three\n\n"
    items = [
        {"prompt": f"{solved}Is the {thing} red?", "separator": " ", "choices": ["no", "yes"], "answer": 1}
        for thing in ("fox", "dog")
    ]
    assert item_texts(items) == ["Is the fox red? yes", "Is the dog red? yes"]
    assert item_texts(items[:1]) == [f"{solved}Is the fox red? yes"]
    assert item_texts([{"prompt": "Say it", "targets": ["a", "b"]}]) == ["Say it\na\nb"]
    assert item_texts([{"text": "one", "deep": [{"more": "two"}, 3]}, "three"]) == ["one\ntwo", "three"]
    assert item_texts([]) == []
