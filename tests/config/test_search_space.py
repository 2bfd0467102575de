"""Mistakes of a search, all at once and before anything starts."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from llama_exp.config.check import check_arguments
from llama_exp.config.check.search_space import find_search_problems, read_axes
from llama_exp.config.plugins import PROCESSES_LAUNCHER
from llama_exp.errors import ConfigError

YAML = Path(__file__).resolve().parents[2] / "hydra_plugins/llama_exp_sweeps/conf/hydra/sweeper/search.yaml"
PARSER = OverridesParser.create()
GOOD = ["optimizer.learning_rate=tag(log,interval(1e-5,1e-2))", "lora.rank=4,8,16"]


def node(launcher=PROCESSES_LAUNCHER, **changes):
    sweeper = OmegaConf.load(YAML)
    return OmegaConf.create({"sweeper": {**sweeper, **changes}, "launcher": {"_target_": launcher}})


def problems(lines, **changes):
    return list(find_search_problems(node(**changes), PARSER.parse_overrides(lines)))


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "random"])
def test_a_sound_search_has_none(sampler):
    assert problems(GOOD, sampler=sampler, pruner="hyperband") == []
    assert problems(["a=1,2", "b=range(0,1,0.1)"], sampler="grid") == []
    assert problems(GOOD, direction=["minimize", "maximize"], objectives=["a", "b.c"]) == []


@pytest.mark.parametrize(
    ("changes", "where", "action"),
    [
        ({"n_trials": 0}, "n_trials", "at least 1"),
        ({"n_trials": "many"}, "n_trials", "at least 1"),
        ({"n_trials": 2.5}, "n_trials", "at least 1"),
        ({"n_trials": True}, "n_trials", "at least 1"),
        ({"seed": -1}, "seed", "at least 0"),
        ({"seed": None}, "seed", "at least 0"),
        ({"direction": "down"}, "direction", "minimize, maximize"),
        ({"direction": []}, "direction", "minimize, maximize"),
        ({"direction": None}, "direction", "minimize, maximize"),
        ({"sampler": "tpes"}, "sampler", "tpe, gp, cmaes, random, grid"),
        ({"pruner": "best"}, "pruner", "none, median, successive_halving, hyperband"),
        ({"prune_after_rows": 0}, "prune_after_rows", "at least 1"),
        ({"prune_after_trials": 0}, "prune_after_trials", "at least 1"),
        ({"n_startup_trials": 0}, "n_startup_trials", "at least 1"),
        ({"reduction_factor": 1}, "reduction_factor", "at least 2"),
        ({"objectives": "loss"}, "objectives", "names in a list"),
        ({"objectives": ["a", "b"]}, "objectives", "as many of both"),
        ({"direction": ["minimize", "maximize"], "pruner": "median"}, "pruner", "pruner=none"),
        ({"direction": ["minimize", "maximize"], "sampler": "cmaes"}, "sampler", "sampler=tpe"),
    ],
)
def test_an_impossible_option_is_named(changes, where, action):
    (problem,) = problems(GOOD, **changes)
    assert problem.where == f"hydra.sweeper.{where}" and action in problem.action


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("k=tag(log,interval(0,1))", "no logarithm at its lower end"),
        ("k=tag(log,interval(-1,1))", "no logarithm at its lower end"),
        ("k=interval(1,1)", "no values between its ends"),
        ("k=interval(2,1)", "no values between its ends"),
        ("k=interval(0,inf)", "no interval of finite numbers"),
        ("k=interval(nan,1)", "no interval of finite numbers"),
        ("k=tag(log,range(0,10))", "step 1 and begins above 0"),
        ("k=tag(log,range(1,10,2))", "step 1 and begins above 0"),
        ("k=tag(log,range(0.1,1,0.1))", "integers only"),
        ("k=tag(log,choice(1,2))", "a tag that means nothing"),
        ("k=tag(other,interval(1,2))", "a tag that means nothing"),
        ("k=range(3,3)", "no values to sweep over"),
        ("k=range(0,10000000)", "too many values"),
        ("k=1,2,1", "a value more than once"),
        ("hydra.job.name=a,b", "cannot differ"),
    ],
)
def test_an_impossible_axis_is_named(line, what):
    (problem,) = [problem for problem in problems(["fine=1,2", line])]
    assert what in problem.what and problem.found == line and problem.where == line.partition("=")[0]


def test_nothing_to_search_over():
    (problem,) = problems([])
    assert problem.where == "hydra.sweeper.params" and "interval(low,high)" in problem.action


@pytest.mark.parametrize(
    ("lines", "sampler", "where"),
    [
        (["a=1,2", "b=x,y"], "cmaes", "hydra.sweeper.sampler"),
        (["a=1,2", "b=interval(0,1)"], "grid", "b"),
        (["a=range(0,5000)", "b=range(0,5000)"], "grid", "hydra.sweeper.sampler"),
    ],
)
def test_a_sampler_needs_a_space_that_it_can_sample(lines, sampler, where):
    (problem,) = problems(lines, sampler=sampler)
    assert problem.where == where


@pytest.mark.parametrize(
    ("absent", "sampler", "action"),
    [
        ("optuna", "tpe", "pip install 'llama_exp[search]'"),
        ("cmaes", "cmaes", "pip install 'llama_exp[search]'"),
        ("torch", "gp", "pip install torch"),
        ("scipy", "gp", "pip install scipy"),
    ],
)
def test_what_is_not_installed_is_named_with_its_command(monkeypatch, absent, sampler, action):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else find(name))
    (problem,) = problems(GOOD, sampler=sampler)
    assert action in problem.action and absent in problem.what + problem.found


@pytest.mark.parametrize("version", ["4.6.0", "6.0.0"])
def test_another_optuna_is_refused(monkeypatch, version):
    import importlib.metadata

    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    (problem,) = problems(GOOD)
    assert version in problem.found and "llama_exp[search]" in problem.action


def test_another_launcher_is_refused_by_name():
    (problem,) = problems(GOOD, launcher="hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher")
    assert problem.where == "hydra/launcher" and problem.found == "JoblibLauncher"
    assert "hydra/launcher=processes" in problem.action


def test_everything_wrong_is_told_at_once():
    found = problems(["k=interval(2,1)", "n=tag(log,interval(0,1))"], n_trials=0, sampler="x", launcher="a.B")
    assert {problem.where for problem in found} == {
        "k", "n", "hydra.sweeper.n_trials", "hydra.sweeper.sampler", "hydra/launcher"
    }  # fmt: skip


def test_the_other_axes_are_read():
    axes, found = read_axes(PARSER.parse_overrides(["a=interval(2,1)", "b=1,2"]))
    assert [axis.key for axis in axes] == ["b"] and len(found) == 1


def test_the_command_line_tells_all_of_it_before_hydra_runs():
    line = ["-m", "hydra/sweeper=search", "hydra/launcher=basic", "hydra.sweeper.n_trials=0", "lora.rank=4,8,4"]
    with pytest.raises(ConfigError) as raised:
        check_arguments([*line, "optimizer.learning_rate=tag(log,interval(0,1))"])
    where = {problem.where for problem in raised.value.problems}
    assert where == {"hydra/launcher", "hydra.sweeper.n_trials", "lora.rank", "optimizer.learning_rate"}


def test_a_point_that_is_impossible_is_named():
    """The ends of an interval are checked as a run's own values are."""
    line = ["-m", "hydra/sweeper=search", "model.dropout=interval(0,1.5)", "seed=0"]
    with pytest.raises(ConfigError, match=r"model.dropout=1.5") as raised:
        check_arguments(line)
    assert {problem.where for problem in raised.value.problems} == {"model.dropout"}


def test_the_ready_search_is_sound():
    command = check_arguments(["sweep=search"])
    assert set(command.sweep.space) == {"optimizer.learning_rate", "optimizer.weight_decay", "optimizer.beta_2"}
