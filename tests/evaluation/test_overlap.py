"""What stands in the training rows, against a search that compares words one by one."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_exp.evaluation import overlap
from llama_exp.evaluation.overlap import FEWEST_WORDS, NGRAM_WORDS, ItemOverlap, find_overlap, split_words

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness."
FEW = st.lists(st.sampled_from(["a", "b", "c", "A,", "b!", "ä"]), max_size=20).map(" ".join)


def runs(words, length):
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]


def by_hand(train_rows, items, n):
    """The same by tuples of words in dictionaries, no hash of ours."""
    result = []
    for item in items:
        words = split_words(item)
        length = min(n, len(words))
        if length < min(n, FEWEST_WORDS):
            result.append(ItemOverlap(len(words), None))
            continue
        first_row = {}
        for row, texts in enumerate(train_rows):
            for text in texts:
                for run in runs(split_words(text), length):
                    first_row.setdefault(run, row)
        found = [run for run in runs(words, length) if run in first_row]
        share = len(found) / len(runs(words, length))
        rows = [first_row[run] for run in found]
        result.append(ItemOverlap(len(words), share, min(rows, default=None), " ".join(found[0]) if found else ""))
    return tuple(result)


@settings(deadline=None)
@given(rows=st.lists(st.lists(FEW, max_size=3), max_size=8), items=st.lists(FEW, max_size=5), n=st.integers(1, 13))
def test_it_finds_what_a_plain_search_finds(rows, items, n):
    found = find_overlap(rows, items, n)
    assert found.items == by_hand(rows, items, n)
    assert found.overlapping == sum(bool(item.share) for item in found.items) <= found.judged


@settings(deadline=None, max_examples=30)
@given(rows=st.lists(st.lists(FEW, max_size=2), max_size=12), items=st.lists(FEW, max_size=4))
def test_it_does_not_matter_how_many_words_are_looked_at_at_once(rows, items):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "_WORDS_AT_ONCE", 7)
        assert find_overlap(iter(rows), items, 3).items == by_hand(rows, items, 3)


def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_not():
    words = TEXT.split()
    assert find_overlap([[TEXT]], [" ".join(["quite", *words[:13], "else"])]).items[0].share == pytest.approx(1 / 3)
    assert find_overlap([[TEXT]], [" ".join(["quite", *words[:12], "else"])]).items[0].share == 0.0


def test_case_punctuation_and_line_ends_do_not_matter():
    changed = TEXT.upper().replace(",", " --\n")
    assert find_overlap([[TEXT]], [changed]).items[0].share == 1.0
    assert split_words("Straße ﬁne don't\tsnake_case 3,5") == [
        *("strasse", "fine", "don", "t", "snake", "case", "3", "5")
    ]


def test_each_chinese_and_japanese_character_is_a_word():
    assert split_words("語る: モデル v2") == ["語", "る", "モ", "デ", "ル", "v2"]
    sentence = "天地玄黃宇宙洪荒日月盈昃辰宿列張"
    assert find_overlap([["又曰" + sentence + "也"]], [sentence]).items[0].share == 1.0


def test_a_short_item_overlaps_as_a_whole_and_a_very_short_one_says_nothing():
    eight, seven = " ".join(TEXT.split()[:FEWEST_WORDS]), " ".join(TEXT.split()[: FEWEST_WORDS - 1])
    found = find_overlap([[TEXT]], [eight, seven, eight + " indeed", ""])
    assert [item.share for item in found.items] == [1.0, None, 0.0, None]
    assert (found.judged, found.overlapping, found.share, found.n) == (2, 1, 0.5, NGRAM_WORDS)
    assert find_overlap([[TEXT]], ["", seven]).share is None


def test_nothing_is_found_across_two_texts_or_rows():
    words = TEXT.split()
    left, right = " ".join(words[:9]), " ".join(words[9:])
    for rows in ([[left, right]], [[left], [right]]):
        assert find_overlap(rows, [TEXT]).items == by_hand(rows, [TEXT], NGRAM_WORDS)
    assert find_overlap([[left], [right]], [" ".join(words[3:16])]).items[0].share == 0.0


def test_the_row_the_words_and_the_worst_items_are_named():
    part = " ".join(TEXT.split()[2:])
    other = "an item of which there is nothing at all in any of the rows of training"
    found = find_overlap([["nothing"], [TEXT], [TEXT]], [other, "so " + part, part])
    assert [item.row for item in found.items] == [None, 1, 1]
    assert found.items[1].text == " ".join(split_words(part)[:13])
    assert found.worst(5) == [2, 1]
    assert found.worst(1) == [2]


def test_no_rows_and_no_items():
    assert find_overlap([], [TEXT]).items == (ItemOverlap(24, 0.0),)
    assert find_overlap([[TEXT]], []).items == ()


def test_progress_counts_every_row(monkeypatch):
    monkeypatch.setattr(overlap, "_WORDS_AT_ONCE", 50)
    told = []
    find_overlap([[TEXT]] * 11, [TEXT], advance=told.append)
    assert sum(told) == 11
    assert len(told) > 1


def test_a_million_words_take_a_moment():
    row = [" ".join(f"w{number % 5003}" for number in range(2000))]
    started = time.perf_counter()
    found = find_overlap([row] * 500, [TEXT, row[0]])
    assert [item.share for item in found.items] == [0.0, 1.0]
    assert time.perf_counter() - started < 10  # 0.4 s here
