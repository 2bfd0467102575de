"""When evaluations are due, what they leave, and that they stop when they are asked to."""

import json

import pytest

from llama_exp.evaluation.evaluations import Evaluations
from llama_exp.evaluation.outcome import Outcome
from llama_exp.evaluation.pace import Pace
from llama_exp.files.evaluation_file import read_evaluations


class Member:
    kind, size = "set", 3

    def __init__(self, name):
        self.name = name

    def fingerprint(self):
        return f"of {self.name}"

    def run(self, watch):
        for _ in range(3):
            watch(1)
        return Outcome({"loss": 1.5, "bits_per_byte": None}, [{"loss": 1.0}, {"loss": 2.0}], 7)


@pytest.mark.parametrize(
    ("every_steps", "due"), [(None, [False, False, False, True]), (2, [False, False, True, True])], ids=str
)
def test_when_they_are_due(every_steps, due):
    evaluations = Evaluations([Member("a")], every_steps, None)
    assert [
        evaluations.is_due(step, is_last) for step, is_last in ((0, False), (3, False), (4, False), (5, True))
    ] == due
    assert not Evaluations([], 1, None).is_due(1, True)


def test_what_a_run_starts_from():
    """Before the first step, where that is asked for, whatever else is due."""
    assert Evaluations([Member("a")], None, None, at_start=True).is_due(0, False)
    assert not Evaluations([Member("a")], 1, None).is_due(0, False)
    assert Evaluations([Member("a")], None, None).is_due(0, True)
    assert not Evaluations([], None, None, at_start=True).is_due(0, False)


def test_rows_and_files(tmp_path):
    told, seen = [], []
    rows = Evaluations([Member("a"), Member("b")], None, tmp_path).run(300, lambda: False, told.append, seen.append)
    assert seen == rows and [row["name"] for row in rows] == ["a", "b"]
    assert rows[0].pop("seconds") >= 0
    assert rows[0] == {
        "step": 300,
        "name": "a",
        "kind": "set",
        "loss": 1.5,
        "bits_per_byte": None,
        "items": 2,
        "tokens": 7,
        "fingerprint": "of a",
        "file": "evaluation/a-00000300.jsonl",
    }
    lines = (tmp_path / "evaluation/a-00000300.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"item": 0, "loss": 1.0}, {"item": 1, "loss": 2.0}]
    assert told[0] == "evaluating a" and told[1].startswith("evaluating a 1/3, ")


def test_files_of_a_command_stay_beside_those_of_the_run(tmp_path):
    for keeps, name in ((False, "a-00000002.jsonl"), (True, "a-00000002.2.jsonl"), (False, "a-00000002.jsonl")):
        (row,) = Evaluations([Member("a")], None, tmp_path, keeps).run(2, lambda: False, lambda phase: None)
        assert row["file"] == f"evaluation/{name}"
    (row,) = Evaluations([Member("a")], None, tmp_path).run(None, lambda: False, lambda phase: None)
    assert row["file"] == "evaluation/a.jsonl" and row["step"] is None


def test_stopping_in_between_gives_no_rows_of_the_one_that_was_stopped(tmp_path):
    asked, seen = iter([False] * 4 + [True]), []
    rows = Evaluations([Member("a"), Member("b")], None, tmp_path).run(
        1, lambda: next(asked), lambda phase: None, seen.append
    )
    assert rows is None and [row["name"] for row in seen] == ["a"]
    assert not (tmp_path / "evaluation/b-00000001.jsonl").exists()
    assert read_evaluations(tmp_path / "evaluation.jsonl") == []  # observers write it, with whole evaluations


def test_a_process_that_is_not_the_writer_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (row,) = Evaluations([Member("a")], None, None).run(1, lambda: False, lambda phase: None)
    assert row["file"] is None and not list(tmp_path.iterdir())


def test_the_pace_in_words():
    pace = Pace("docs", 400, lambda: False, lambda phase: None)
    pace(119.5)
    pace(0.5)
    assert pace.text(4.0) == "docs 120/400, 30.0 items/s, ETA 0:09"
    pace(1000)
    assert pace.text(2.0) == "docs 400/400, 200 items/s, ETA 0:00"
