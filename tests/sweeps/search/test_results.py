"""Tables and pictures of a search."""

import csv

import pytest
import yaml
from PIL import Image
from searching import AXES, FakePool, objective, options, rows_of, run_search

from llama_exp.limits.figures import Direction
from llama_exp.sweeps.jobs import Outcome, State
from llama_exp.sweeps.search.results import find_best, find_importance, write_results


def behave(job):
    if job.number == 1:
        return rows_of(job, objective(job)), Outcome(State.failed, "raised ValueError: a, b\nc", 1)
    return rows_of(job, objective(job)), Outcome(State.finished, value=objective(job))


def results(folder, **changes):
    study = run_search(folder, FakePool(1, behave), **changes)
    write_results(folder, study, AXES, options(**changes))
    return study


def test_the_table_has_a_line_for_each_trial(tmp_path):
    study = results(tmp_path, pruner="median", n_trials=20)
    with (tmp_path / "trials.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["state"] for line in lines] == [trial.state.name.lower() for trial in study.trials]
    assert {"complete", "fail", "pruned"} == {line["state"] for line in lines}
    best = min((line for line in lines if line["value"]), key=lambda line: float(line["value"]))
    assert float(best["value"]) == study.optuna.best_value
    assert lines[1]["cause"].startswith("raised ValueError: a, b") and lines[1]["value"] == ""
    assert lines[0]["lora.rank"] in ("4", "8", "16")
    pruned = [line for line in lines if line["state"] == "pruned"]
    assert all(line["step"] in ("10", "20", "30") for line in pruned)


def test_the_best_point_stands_under_the_names_of_hydras_optuna_sweeper(tmp_path):
    study = results(tmp_path)
    found = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    (best,) = find_best(study, AXES)
    assert found["best_value"] == best.values[0] == study.optuna.best_value
    assert [f"{key}={value}" for key, value in found["best_params"].items()] == list(best.overrides)
    assert {key: type(value) for key, value in found["best_params"].items()} == {
        "optimizer.learning_rate": float, "lora.rank": int, "layers": int
    }  # fmt: skip


def test_pictures_are_drawn(tmp_path):
    results(tmp_path, pruner="median", n_trials=20)
    for name in ("history.png", "importance.png"):
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG" and image.size[0] == 1200


def test_importance_finds_the_key_that_decides(tmp_path):
    """The learning rate spans sixteen, the ranks and layers less than a half."""
    study = results(tmp_path, n_trials=40)
    (importance,) = find_importance(study, AXES, [Direction.minimize])
    assert next(iter(importance)) == "optimizer.learning_rate"
    assert sum(importance.values()) == pytest.approx(1)


@pytest.mark.parametrize("num_trials", [1, 2])
def test_few_trials_have_no_importance(tmp_path, num_trials):
    results(tmp_path, n_trials=num_trials)
    assert (tmp_path / "history.png").exists() and not (tmp_path / "importance.png").exists()


def test_a_search_in_which_nothing_finished_has_a_table_only(tmp_path):
    study = run_search(tmp_path, FakePool(1, lambda job: ([], Outcome(State.failed, "raised", 1))))
    write_results(tmp_path, study, AXES, options())
    assert (tmp_path / "trials.csv").exists() and not (tmp_path / "history.png").exists()
    assert find_best(study, AXES) == []


def test_several_objectives_have_several_best_points(tmp_path):
    def trade(job):
        return [], Outcome(State.finished, value=(objective(job), -objective(job)))

    changes = {"direction": ["minimize", "minimize"], "n_trials": 6}
    study = run_search(tmp_path, FakePool(1, trade), **changes)
    write_results(tmp_path, study, AXES, options(**changes))
    found = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    assert len(found["solutions"]) == 6 and all(len(one["values"]) == 2 for one in found["solutions"])
    assert (tmp_path / "history.png").exists() and (tmp_path / "importance.png").exists()
