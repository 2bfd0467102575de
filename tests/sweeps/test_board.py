"""The figures of a running sweep: counts, what is left, what is best."""

import pytest
from omegaconf import OmegaConf

from llama_exp.sweeps.board import Board, format_value, list_numbers
from llama_exp.sweeps.estimate import estimate_left
from llama_exp.sweeps.jobs import Glimpse, Job, Outcome, State


def job(number):
    return Job(number, (f"seed={number}",), (), None, OmegaConf.create({}))


@pytest.mark.parametrize(
    ("running", "waiting", "slots", "job_seconds", "left"),
    [
        ([], 0, 1, None, 0.0),
        ([30.0], 0, 1, None, 30.0),
        ([30.0, 50.0], 1, 2, 100.0, 130.0),  # it takes the slot that is free first
        ([], 4, 2, 60.0, 120.0),
        ([10.0], 3, 2, 60.0, 120.0),  # one slot is free now: 60, 10 + 60, then 60 + 60
        ([None], 0, 1, 60.0, None),
        ([30.0], 1, 1, None, None),
    ],
)
def test_time_left(running, waiting, slots, job_seconds, left):
    assert estimate_left(running, waiting, slots, job_seconds) == left


def test_counts_and_time_of_a_sweep():
    now = [0.0]
    board = Board(5, [job(number) for number in (2, 3, 4)], earlier=2, now=lambda: now[0])
    assert board.counts()[State.finished] == 2 and board.counts()[State.pending] == 3 and board.left() is None
    board.start(job(2))
    now[0] = 40.0
    board.tick([(job(2), Glimpse(step=40, steps=100, seconds_left=60.0), 40.0)])
    assert board.left() == 60 + 2 * 100, "as long as what runs will have taken"
    now[0] = 90.0
    board.end(job(2), Outcome(State.finished, value=1.0))
    board.start(job(3))
    assert board.rows[2].seconds == 90 and board.left() == 90 + 90, "as long as what has finished"
    board.end(job(3), Outcome(State.failed, "x"))
    assert board.counts() == {State.finished: 3, State.failed: 1, State.pending: 1}


def test_a_search_knows_its_trials_only_when_they_begin():
    board = Board(10)
    board.start(job(0))
    assert board.counts()[State.pending] == 9


def test_a_job_that_never_started():
    board = Board(1, [job(0)])
    assert board.end(job(0), Outcome(State.failed, "no memory")).seconds == 0.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.891234, "2.8912"), (1e-7, "1.000e-07"), (0.0, "0.0000"), (3, "3"), ((1.0, 2.5), "1.0000, 2.5000"),
     (None, ""), ("a\x1b", "a\\x1b"), (float("nan"), "nan")],
)  # fmt: skip
def test_values(value, text):
    assert format_value(value) == text


def test_numbers():
    assert list_numbers([3, 0, 1, 2, 7, 9, 10]) == "0-3, 7, 9-10" and list_numbers([]) == ""
