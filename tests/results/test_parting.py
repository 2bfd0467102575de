"""From which row on two runs part."""

import math

import pytest
from recorded_runs import ROWS, row

from llama_exp.results.parting import compare_rows, measure_gap


def test_the_same_rows_have_no_gap_whatever_a_clock_says():
    other = [{**entry, "seconds": 99.0, "tokens_per_second": 1.0, "mfu": None} for entry in ROWS]
    parting = compare_rows(ROWS, other)
    assert (parting.compared, parting.gaps, parting.missing, parting.added, parting.first) == (4, (), (), (), None)


def test_the_first_gap_is_the_first_in_time():
    other = [ROWS[0], row(10, 4.0, grad_norm=1.0), row(20, 3.3), row(20, 3.5000001, "validation")]
    parting = compare_rows([ROWS[0], row(10, 4.0, grad_norm=2.0), *ROWS[2:]], other)
    first = parting.first
    assert (first.step, first.split, first.figure, first.before, first.after) == (10, "train", "grad_norm", 2.0, 1.0)
    assert parting.find_largest("loss").step == 20 and parting.find_largest("loss").split == "train"
    assert parting.find_largest("loss").relative == pytest.approx(0.3 / 3.3)
    assert parting.find_largest("tokens") is None


def test_a_shorter_run_is_compared_as_far_as_it_goes():
    parting = compare_rows(ROWS, ROWS[:2])
    assert (parting.compared, parting.gaps, parting.missing, parting.added) == (2, (), (), ())


def test_rows_that_one_of_them_lacks_are_named():
    parting = compare_rows(ROWS, [ROWS[0], row(15, 3.5), *ROWS[2:]])
    assert parting.missing == ((10, "train"),) and parting.added == ((15, "train"),)


def test_a_row_that_was_written_twice_counts_as_it_was_last():
    assert compare_rows([row(10, 9.0), *ROWS], ROWS).gaps == ()


def test_evaluations_are_found_by_name_and_without_a_step():
    rows = [{"step": None, "name": "docs", "loss": 2.0, "file": "a"}]
    parting = compare_rows(rows, [{**rows[0], "loss": 2.5, "file": "b"}])
    assert (parting.first.step, parting.first.split, parting.first.figure) == (-1, "docs", "loss")
    assert len(parting.gaps) == 1


def test_no_rows_are_nothing_to_compare():
    assert compare_rows([], ROWS).compared == compare_rows([], []).compared == 0


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (2.0, 1.0, 0.5),
        (-1.0, 1.0, 2.0),
        (0.0, 0.0, 0.0),
        (math.nan, math.nan, 0.0),
        (math.nan, 1.0, math.inf),
        (math.inf, math.inf, 0.0),
        (math.inf, 1.0, math.inf),
        (None, 1.0, math.inf),
        ("a", "a", 0.0),
        ("a", "b", math.inf),
    ],
)
def test_gaps_are_relative_to_the_larger_number(before, after, expected):
    assert measure_gap(before, after) == measure_gap(after, before) == expected
