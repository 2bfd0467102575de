"""The study on the disk: whole after any kill, and refused where it is another's."""

import json

import pytest
from optuna.trial import TrialState
from searching import AXES, FakePool, open_study, options, run_search

from llama_exp.errors import ConfigError, InputError
from llama_exp.limits.search import Axis

NAME = "study.journal"


def journal_of(folder, **changes):
    """The lines of a search's journal, with the number of trials that each one's predecessors hold."""
    run_search(folder, FakePool(), n_trials=3, pruner="median", **changes)
    return (folder / NAME).read_bytes()


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_journal_that_is_cut_anywhere_is_a_study(tmp_path, sampler):
    """A kill or a power cut after any byte: every trial that is there has its whole point."""
    data = journal_of(tmp_path / "whole", sampler=sampler)
    expected = [trial.params for trial in open_study(tmp_path / "whole", options(sampler=sampler)).trials]
    folder = tmp_path / "cut"
    folder.mkdir()
    ends = [place for place, byte in enumerate(data) if byte == 10]
    for end in sorted({cut for place in ends for cut in (place - 7, place, place + 1)}):
        (folder / NAME).write_bytes(data[:end])
        study = open_study(folder, options(sampler=sampler))
        assert [trial.params for trial in study.trials] == expected[: len(study.trials)]
        number = len(study.trials)
        if number < 3:
            study.ask()
            assert open_study(folder, options(sampler=sampler)).trials[number].params == study.trials[number].params


def test_a_lock_that_a_kill_left_holds_nobody_up(tmp_path):
    journal_of(tmp_path)
    (tmp_path / f"{NAME}.lock").symlink_to(NAME)
    study = open_study(tmp_path, options())
    study.ask()
    assert not (tmp_path / f"{NAME}.lock").is_symlink()


@pytest.mark.parametrize("line", [b"garbage\n{}\n", b"[]\n[]\n", b"{}\n"])
def test_what_is_no_journal_is_refused(tmp_path, line):
    (tmp_path / NAME).write_bytes(line)
    with pytest.raises(InputError, match="no journal of a search"):
        open_study(tmp_path, options())


@pytest.mark.parametrize(
    ("axes", "changes", "words"),
    [
        ([*AXES[:2], Axis("layers", ("1", "2"), 1, 2, 1)], {}, ["layers", "[1, 4, 1, False]", "[1, 2, 1, False]"]),
        (AXES[:2], {}, ["layers", "absent"]),
        ([AXES[0], Axis("lora.rank", ("4", "8")), AXES[2]], {}, ["lora.rank", "'16'"]),
        (AXES, {"direction": "maximize"}, ["direction", "maximize", "minimize"]),
        (AXES, {"objectives": ["validation.best"]}, ["objectives", "validation.best"]),
    ],
)
def test_another_search_in_the_same_folder_is_refused_with_the_difference(tmp_path, axes, changes, words):
    open_study(tmp_path, options()).ask()
    with pytest.raises(ConfigError) as raised:
        open_study(tmp_path, options(**changes), axes)
    assert raised.value.exit_code == 2
    assert all(word in str(raised.value) for word in [*words, NAME, "hydra.sweep.dir"]), raised.value
    assert len(open_study(tmp_path, options()).trials) == 1


@pytest.mark.parametrize("changes", [{"n_trials": 30}, {"sampler": "tpe"}, {"pruner": "median"}, {"seed": 8}])
def test_how_it_goes_on_may_change(tmp_path, changes):
    open_study(tmp_path, options()).ask()
    assert len(open_study(tmp_path, options(**changes)).trials) == 1


def test_a_trial_is_one_line(tmp_path):
    study = open_study(tmp_path, options())
    before = len((tmp_path / NAME).read_bytes().splitlines())
    study.ask()
    (line,) = (tmp_path / NAME).read_bytes().splitlines()[before:]
    assert set(json.loads(line)["params"]) == {axis.key for axis in AXES}


def test_no_pickle_is_in_the_journal(tmp_path):
    """Whoever opens a folder that somebody else made must not run what is in it."""
    journal_of(tmp_path, sampler="cmaes", n_startup_trials=1)
    text = (tmp_path / NAME).read_text()
    assert "optimizer:" not in text.replace("optimizer.learning_rate", "") and len(text) < 20_000


def test_a_row_is_reported_once(tmp_path):
    study = open_study(tmp_path, options())
    study.ask()
    assert study.report(0, 10, 1.5) and not study.report(0, 10, 2.5)
    again = open_study(tmp_path, options())
    assert not again.report(0, 10, 2.5)
    assert again.trials[0].intermediate_values == {10: 1.5}


def test_an_ended_trial_stays_as_it_is(tmp_path):
    study = open_study(tmp_path, options())
    study.ask()
    study.tell(0, TrialState.COMPLETE, [1.0])
    study.tell(0, TrialState.FAIL, cause="late")
    assert study.trials[0].state is TrialState.COMPLETE and study.trials[0].value == 1.0
