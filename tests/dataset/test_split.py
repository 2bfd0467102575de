"""Which documents validate: by content, by position, and where hashes leave a side empty."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_exp.dataset.records import document, pair
from llama_exp.dataset.split import Split, is_by_position


def divided(records, fraction, num_documents=None):
    """Split -> records of it."""
    found = {"train": [], "validation": []}
    for side, record in Split(lambda: iter(records), fraction, num_documents):
        found[side].append(record)
    return found


def texts_of(records):
    return ["".join(group) for group in grouped(records)]


def grouped(records):
    """The texts of each document, in its parts."""
    groups = []
    for record in records:
        if record.begins:
            groups.append([])
        groups[-1].append(record.text)
    assert all(record.ends == (follower is None or follower.begins) for record, follower in pairwise(records))
    return groups


def pairwise(records):
    return zip(records, [*records[1:], None], strict=True)


def in_parts(text, size):
    """A document in records of `size` characters."""
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    last = len(parts) - 1
    return [document("book:1", part, number == 0, number == last) for number, part in enumerate(parts)]


BOOK = "".join(f"line {number} of a book\n" for number in range(1000))


@pytest.mark.parametrize("size", [10**6, 1000, 7, 1])
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])
def test_a_lone_book_gives_its_end(size, fraction):
    found = divided(in_parts(BOOK, size), fraction)
    (train,), (validation,) = texts_of(found["train"]), texts_of(found["validation"])
    assert train + validation == BOOK
    assert len(validation) / len(BOOK) == pytest.approx(fraction, abs=0.01)
    if size > 30:  # the end of a line is looked for in the same part
        assert train.endswith("\n") and validation.startswith("line ")


@given(st.lists(st.text(min_size=2, max_size=50), min_size=1, max_size=19), st.integers(1, 60))
def test_few_texts_are_cut_and_nothing_is_lost(texts, size):
    records = [record for text in texts for record in in_parts(text, size)]
    found = divided(records, 0.05)
    both = zip(texts_of(found["train"]), texts_of(found["validation"]), strict=True)
    assert [train + validation for train, validation in both] == texts


def test_where_whole_documents_give_the_share_a_hash_decides_as_it_always_did():
    texts = [f"document {number}" for number in range(200)]
    found = divided([document("", text) for text in texts], 0.1)
    expected = [text for text in texts if hashlib.sha256(text.encode()).digest()[:8] < (2**64 // 10).to_bytes(8, "big")]
    assert texts_of(found["validation"]) == expected and 5 < len(expected) < 40
    known = divided([document("", text) for text in texts], 0.1, num_documents=10**6)  # one pass
    assert known == found


def test_a_document_in_parts_falls_where_it_fell_as_a_whole():
    texts = [f"document {number} " * 50 for number in range(60)]
    whole = divided([document("book:1", text) for text in texts], 0.2)
    parts = divided([record for text in texts for record in in_parts(text, 100)], 0.2)
    assert {side: texts_of(records) for side, records in parts.items()} == {
        side: texts_of(records) for side, records in whole.items()
    }


@pytest.mark.parametrize("fraction", [0.001, 0.4, 0.999])
def test_no_side_is_empty_where_there_are_two_pairs(fraction):
    for number in range(30):
        records = [pair("", f"ask {number} {which}", "answer") for which in range(3)]
        found = divided(records, fraction)
        assert found["train"] and found["validation"]
        assert len(found["train"]) + len(found["validation"]) == 3


def test_a_pair_is_never_cut():
    found = divided([pair("", "a long question? " * 9, "an answer")], 0.05)
    assert sorted(map(len, found.values())) == [0, 1]


@pytest.mark.parametrize(("number", "fraction", "expected"), [(1, 0.5, True), (19, 0.05, True), (20, 0.05, False)])
def test_what_few_means(number, fraction, expected):
    assert is_by_position(number, fraction) == expected
