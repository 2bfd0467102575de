"""Packing: no token lost, no row too long, pieces contiguous, n - 1 targets for n tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_exp.dataset import packing
from llama_exp.dataset.packing import best_fit_decreasing, pack
from llama_exp.limits.dataset import Packing

documents = st.lists(st.integers(2, 40), min_size=1, max_size=40)


def everything_counts(lengths):
    return np.array(lengths, np.int64), np.ones(sum(lengths), np.uint8)


@pytest.mark.parametrize("kind", Packing)
@given(lengths=documents, sequence_length=st.integers(2, 24))
def test_every_target_is_there_exactly_once(kind, lengths, sequence_length):
    layout, left_out = pack(*everything_counts(lengths), sequence_length, kind)
    ends = np.cumsum(lengths)
    targets = set((np.arange(sum(lengths))).tolist()) - set((ends - lengths).tolist())
    found = [
        token
        for start, length, continues in zip(layout.start, layout.length, layout.continues, strict=True)
        for token in range(start + 1, start + length + continues)
    ]
    assert sorted(found) == sorted(targets)  # n - 1 for each document of n tokens
    assert left_out == 0


@pytest.mark.parametrize("kind", Packing)
@given(lengths=documents, sequence_length=st.integers(2, 24))
def test_pieces_stay_inside_rows_and_documents_and_do_not_overlap(kind, lengths, sequence_length):
    layout, _ = pack(*everything_counts(lengths), sequence_length, kind)
    assert (layout.column >= 0).all()
    assert (layout.column + layout.length <= sequence_length).all()
    # The column behind the row's end is the only place for the successor of a cut piece.
    assert (layout.column + layout.length)[layout.continues == 1].tolist() == [sequence_length] * layout.continues.sum()
    document = np.searchsorted(np.cumsum(lengths), layout.start, side="right")
    last = layout.start + layout.length - 1 + layout.continues
    assert np.array_equal(document, np.searchsorted(np.cumsum(lengths), last, side="right"))
    for row in range(layout.num_rows):
        here = layout.row == row
        assert here.any()
        # Contiguous from column 0 on, in the order of the arrays.
        assert layout.column[here].tolist() == [0, *np.cumsum(layout.length[here])[:-1].tolist()]
    assert np.array_equal(layout.row, np.sort(layout.row))


@given(lengths=documents, sequence_length=st.integers(2, 24))
def test_concat_fills_every_row_but_those_at_the_end(lengths, sequence_length):
    layout, _ = pack(*everything_counts(lengths), sequence_length, Packing.concat)
    filled = np.bincount(layout.row, weights=layout.length)
    assert (filled[:-1] == sequence_length).all()


@given(lengths=documents, sequence_length=st.integers(2, 24))
def test_documents_that_fit_are_whole_unless_concatenated(lengths, sequence_length):
    for kind in ("best_fit", "none"):
        layout, _ = pack(*everything_counts(lengths), sequence_length, kind)
        starts = dict(zip((np.cumsum(lengths) - lengths).tolist(), lengths, strict=True))
        for start, length, continues in zip(layout.start, layout.length, layout.continues, strict=True):
            if starts.get(start, sequence_length + 1) <= sequence_length:
                assert (length, continues) == (starts[start], 0)
        if kind == "none":
            assert layout.num_rows == len(layout.start)


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60), capacity=st.integers(30, 50))
def test_best_fit_decreasing_is_what_its_name_says(lengths, capacity):
    bins, offsets = best_fit_decreasing(np.array(lengths), capacity)
    rooms = []
    for item in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        fitting = [room for room in rooms if room >= lengths[item]]
        if fitting:
            rooms.remove(min(fitting))
        room = min(fitting, default=capacity)
        rooms.append(room - lengths[item])
    assert sorted(rooms) == sorted((capacity - np.bincount(bins, weights=lengths)).astype(int).tolist())
    for number in range(bins.max() + 1):
        taken = [slot for i in np.flatnonzero(bins == number) for slot in range(offsets[i], offsets[i] + lengths[i])]
        assert sorted(taken) == list(range(len(taken)))


@given(lengths=documents, sequence_length=st.integers(2, 24), at_once=st.integers(1, 50))
def test_the_stream_is_summed_in_parts(lengths, sequence_length, at_once):
    is_target = (np.arange(sum(lengths)) % 3 > 0).astype(np.uint8)
    whole = packing.pack(np.array(lengths), is_target, sequence_length, Packing.concat)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_SUMMED_AT_ONCE", at_once)
        parts = packing.pack(np.array(lengths), is_target, sequence_length, Packing.concat)
    assert whole[1] == parts[1]
    assert all(np.array_equal(getattr(whole[0], field), getattr(parts[0], field)) for field in ("start", "row"))


def test_the_drawing_in_the_docstring():
    lengths, is_target = everything_counts([6, 3])
    concat, _ = pack(lengths, is_target, 4, Packing.concat)
    assert concat.num_rows == 2
    assert list(zip(concat.row, concat.column, concat.start, concat.length, concat.continues, strict=True)) == [
        (0, 0, 0, 4, 1),
        (1, 0, 4, 2, 0),
        (1, 2, 6, 2, 1),
    ]
    best_fit, _ = pack(lengths, is_target, 4, Packing.best_fit)
    assert list(zip(best_fit.row, best_fit.column, best_fit.start, best_fit.length, strict=True)) == [
        (0, 0, 0, 4),
        (1, 0, 6, 3),
        (2, 0, 4, 2),
    ]


@pytest.mark.parametrize("kind", Packing)
def test_what_has_no_target_is_left_out_and_counted(kind):
    lengths = np.array([12, 3])
    is_target = np.zeros(15, np.uint8)
    is_target[[10, 13]] = 1  # the first eight tokens of document 0 are a prompt
    layout, left_out = pack(lengths, is_target, 4, kind)
    assert left_out == 2
    assert 0 not in layout.start and 4 not in layout.start
    assert {8, 12} <= set(layout.start.tolist())
    assert set(layout.row.tolist()) == set(range(layout.num_rows))
