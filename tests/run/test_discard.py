"""A run that fails before its first step leaves no folder; any other does."""

import json

import pytest

from llama_exp.errors import Interrupted, Preempted, Problem, StorageError
from llama_exp.run.folder import RunFolder

ERROR = StorageError(Problem("a", "b", "c", "d"))
NAME = "2026-01-01_00-00-00_0123abcd"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs" / "default"


def fail(folder, error=ERROR, rows=(), checkpoint=False):
    with pytest.raises(type(error)), RunFolder.create(folder) as run:
        run.begin({"seed": 0}, [], ["train.py"], "abc")
        for row in rows:
            run.metrics.on_metrics(row)
        if checkpoint:
            (run.checkpoints / "step-00000001").mkdir(parents=True)
        run.finish(error)
        run.discard_if_fruitless(error)
        raise error


def test_nothing_is_left_of_a_run_without_a_step(home):
    fail(home / NAME, rows=[{"step": 0, "split": "validation", "loss": 5.0}])
    assert not home.parent.exists()


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_folder_of_another_place_goes_and_its_parents_stay(home, tmp_path, exists):
    folder = tmp_path / "elsewhere" / "run"
    (folder if exists else folder.parent).mkdir(parents=True)
    fail(folder)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "what",
    [
        {"rows": [{"step": 1, "split": "train", "loss": 5.0}]},
        {"checkpoint": True},
        {"error": Preempted("SIGTERM")},
        {"error": Interrupted("SIGINT")},
    ],
)
def test_a_run_with_a_step_or_a_signal_stays(home, what):
    fail(home / NAME, **what)
    assert json.loads((home / NAME / "summary.json").read_text())["status"] != "running"


def test_what_was_there_before_stays(home):
    (home / NAME).mkdir(parents=True)
    (home / NAME / "notes.txt").write_text("mine")
    fail(home / NAME)
    assert (home / NAME / "notes.txt").read_text() == "mine"


def test_latest_goes_back_to_the_run_before(home):
    good = home / "2025-01-01_00-00-00_0123abcd"
    with RunFolder.create(good) as run:
        run.begin({"seed": 0}, [], ["train.py"], "abc")
    (home / "latest").symlink_to(NAME)
    fail(home / NAME)
    assert (home / "latest").resolve() == good
