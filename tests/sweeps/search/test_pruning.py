"""Running trials are compared by the figure that the search is about."""

import json
from types import SimpleNamespace

import pytest

from llama_exp.sweeps.search.pruning import Pruning

ROWS = [
    {"step": 0, "split": "validation", "loss": 5.0, "perplexity": 148.0},
    {"step": 1, "split": "train", "loss": 4.5},
    {"step": 2, "split": "validation", "loss": 4.0, "perplexity": "Infinity"},
]
EVALUATIONS = [
    {"step": 2, "name": "a.b", "accuracy": 0.25, "loss": 1.0},
    {"step": 2, "name": "other", "accuracy": 0.9},
    {"step": None, "name": "a.b", "accuracy": 0.9},
    {"step": 4, "name": "a.b", "accuracy": "NaN"},
]


class Study:
    """Remembers what it is told."""

    def __init__(self):
        self.told = []

    def report(self, number, step, value):
        self.told.append((step, value))
        return True

    def decide(self, number):
        return False


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        ("validation.loss", [(0, 5.0), (2, 4.0)]),
        ("validation.best", [(0, 5.0), (2, 4.0)]),
        ("validation.perplexity", [(0, 148.0), (2, float("inf"))]),
        ("evaluation.a.b.accuracy", [(2, 0.25), (4, float("nan"))]),
        ("evaluation.none.accuracy", []),
    ],
)
def test_rows_of_a_figure(tmp_path, figure, expected):
    for name, rows in (("metrics.jsonl", ROWS), ("evaluation.jsonl", EVALUATIONS)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = Study()
    pruning = Pruning(study, figure)
    job = SimpleNamespace(folder=tmp_path, number=0)
    assert pruning.look(job) is False
    assert repr(study.told) == repr(expected)  # NaN is not equal to itself
    pruning.look(job)
    assert len(study.told) == len(expected)  # the file has not grown


def test_a_trial_that_has_written_nothing(tmp_path):
    for figure in ("validation.loss", "evaluation.a.accuracy"):
        assert Pruning(Study(), figure).look(SimpleNamespace(folder=tmp_path, number=0)) is False
