"""Samplers: each trial is a function of the seed, its number and the trials before it."""

import itertools

import numpy as np
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from searching import AXES, FakePool, run_search

from llama_exp.limits.search import Axis
from llama_exp.sweeps.jobs import Outcome, State

CHOICES = [axis for axis in AXES if axis.values]
SPHERE = [Axis(key, (), -4.0, 6.0) for key in "xyz"]


def points(study):
    return [tuple(trial.params.values()) for trial in study.trials]


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes", "grid"])
def test_the_same_seed_gives_the_same_trials_and_another_one_others(tmp_path, sampler):
    axes = CHOICES if sampler == "grid" else AXES
    first, again, other = (
        points(run_search(tmp_path / name, FakePool(), axes, sampler=sampler, seed=seed))
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert first == again != other
    assert len(set(first)) > 6


@pytest.fixture(autouse=True)
def objective_of_any_axes(monkeypatch):
    def objective(job):
        return sum(float(line.partition("=")[2]) ** 2 for line in job.overrides)

    monkeypatch.setattr("searching.objective", objective)


def test_a_grid_has_every_point_once_and_no_more(tmp_path):
    study = run_search(tmp_path, FakePool(4), CHOICES, sampler="grid", n_trials=100)
    assert len(study.trials) == 12
    assert set(points(study)) == set(itertools.product(("4", "8", "16"), (1, 2, 3, 4)))
    assert points(study) != sorted(points(study))


def test_a_grid_that_grows_goes_on_with_the_points_that_are_left(tmp_path):
    run_search(tmp_path, FakePool(), CHOICES, sampler="grid", n_trials=5)
    study = run_search(tmp_path, FakePool(), CHOICES, sampler="grid", n_trials=12)
    assert len(set(points(study))) == 12


@pytest.mark.parametrize("sampler", ["cmaes", "tpe"])
def test_it_finds_the_bottom_sooner_than_chance(tmp_path, sampler):
    """The sphere function in three dimensions: its bottom is at 0."""
    late = {
        name: [
            trial.value for trial in run_search(tmp_path / name, FakePool(), SPHERE, sampler=name, n_trials=40).trials
        ][-15:]
        for name in (sampler, "random")
    }
    assert np.median(late[sampler]) < 0.6 * np.median(late["random"])


def test_cmaes_goes_uphill_too(tmp_path):
    def behave(job):
        return [], Outcome(State.finished, value=-sum(float(line.partition("=")[2]) ** 2 for line in job.overrides))

    study = run_search(
        tmp_path, FakePool(1, behave), SPHERE, sampler="cmaes", n_trials=40, direction="maximize", n_startup_trials=1
    )
    late = [trial.value for trial in study.trials[-10:]]
    assert np.median(late) > np.median([trial.value for trial in study.trials[:10]])
    assert study.optuna.best_value > -1


@pytest.mark.parametrize(
    "axis",
    [
        Axis("k", (), 1, 9, 1),
        Axis("k", (), 1, 512, 1, True),
        Axis("k", ("2", "5", "8"), 2, 8, 3),
        Axis("k", (), 1e-5, 1e-2, None, True),
        Axis("k", ("0.1", "0.2", "0.3"), 0.1, 0.3, 0.1),
        Axis("k", (), -1.0, 1.0),
    ],
    ids=str,
)
def test_cmaes_stays_on_the_scale(tmp_path, axis):
    study = run_search(tmp_path, FakePool(), [axis], sampler="cmaes", n_trials=25, n_startup_trials=1)
    values = [trial.params["k"] for trial in study.trials]
    assert all(axis.low <= value <= axis.high + 1e-12 for value in values)
    if axis.step is not None:
        positions = [(value - axis.low) / axis.step for value in values]
        np.testing.assert_allclose(positions, np.round(positions), atol=1e-9)
    kind = IntDistribution if isinstance(axis.low, int) else FloatDistribution
    assert isinstance(study.trials[0].distributions["k"], kind)
    assert len(set(values)) > 1


@pytest.mark.oracle
def test_a_gaussian_process_searches_too(tmp_path):
    first = run_search(tmp_path / "a", FakePool(), SPHERE, sampler="gp", n_trials=16)
    again = run_search(tmp_path / "b", FakePool(), SPHERE, sampler="gp", n_trials=16)
    assert points(first) == points(again)
    assert first.optuna.best_value < min(trial.value for trial in first.trials[:4])
