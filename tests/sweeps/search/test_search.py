"""The loop of a search, with a pool that only counts."""

import signal

import pytest
from optuna.trial import TrialState
from searching import AXES, OPTIONS, FakePool, Killed, objective, open_study, options, rows_of, run_search, summarise

from llama_exp.sweeps.jobs import Outcome, State
from llama_exp.sweeps.search.study import find_cause, find_stopped_step

STATES = TrialState


def states(study):
    return [trial.state.name for trial in study.trials]


@pytest.mark.parametrize("slots", [1, 3])
def test_as_many_trials_as_asked_for_and_no_slot_stays_free(tmp_path, slots):
    pool = FakePool(slots)
    study = run_search(tmp_path, pool)
    assert states(study) == ["COMPLETE"] * 12
    assert pool.started == list(range(12)) and pool.most == slots
    # Each trial takes four rows and a tick that ends it: no tick passes with a slot free while trials are left.
    assert pool.now == 5 * 12 // slots


def test_a_slot_is_filled_as_soon_as_it_is_free(tmp_path):
    """One long trial does not hold the others up: hydra#3091."""

    def behave(job):
        long = job.number == 0
        return [(step, 1.0) for step in range(1, 41 if long else 3)], Outcome(State.finished, value=1.0)

    pool = FakePool(2, behave)
    run_search(tmp_path, pool)
    assert pool.now == 41


def fails_at(number, outcome):
    def behave(job):
        return rows_of(job, objective(job)), (
            outcome if job.number == number else Outcome(State.finished, value=objective(job))
        )

    return behave


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (Outcome(State.failed, "raised ValueError: no", 1), "raised ValueError: no"),
        (Outcome(State.failed, "was killed by SIGKILL"), "was killed by SIGKILL"),
        (Outcome(State.finished, value=float("nan")), "returned nan, which is no finite number"),
        (Outcome(State.finished, value=float("inf")), "returned inf, which is no finite number"),
        (Outcome(State.finished, value=None), "returned None, and a search needs a number"),
        (Outcome(State.finished, value=(1.0, 2.0)), "returned 2 values, and the search has 1 directions"),
    ],
)
def test_what_fails_is_told_with_its_cause_and_ends_nothing(tmp_path, outcome, cause):
    study = run_search(tmp_path, FakePool(1, fails_at(2, outcome)), n_trials=5)
    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert find_cause(study.trials[2]) == cause


def test_all_may_fail(tmp_path):
    pool = FakePool(1, lambda job: ([], Outcome(State.failed, "raised", 1)))
    assert states(run_search(tmp_path, pool, sampler="tpe")) == ["FAIL"] * 12


def test_the_first_failure_can_be_the_end(tmp_path):
    study = run_search(tmp_path, FakePool(1, fails_at(2, Outcome(State.failed, "raised", 1))), stop_on_failure=True)
    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL"]


@pytest.mark.parametrize("pruner", ["median", "successive_halving", "hyperband"])
def test_pruning_saves_steps_and_keeps_the_best(tmp_path, pruner):
    whole, pruned = FakePool(), FakePool()
    expected = run_search(tmp_path / "whole", whole, n_trials=20)
    study = run_search(tmp_path / "pruned", pruned, pruner=pruner, n_trials=20)
    assert [trial.params for trial in study.trials] == [trial.params for trial in expected.trials]
    assert "PRUNED" in states(study) and pruned.ticks < 0.9 * whole.ticks
    for trial in study.trials:
        stopped = find_stopped_step(trial)
        assert (stopped is not None) == (trial.state is STATES.PRUNED)
        assert stopped in (None, max(trial.intermediate_values))
        if trial.state is STATES.COMPLETE:
            assert list(trial.intermediate_values) == [10, 20, 30, 40]
    # What the median of all finished trials spares is what an undisturbed search would rate low.
    if pruner == "median":
        assert study.optuna.best_trial.number == expected.optuna.best_trial.number


def test_pruning_begins_after_so_many_trials_and_rows(tmp_path):
    study = run_search(tmp_path, FakePool(), pruner="median", prune_after_trials=6, prune_after_rows=3, n_trials=20)
    pruned = [trial for trial in study.trials if trial.state is STATES.PRUNED]
    assert pruned and min(trial.number for trial in pruned) >= 6
    assert {len(trial.intermediate_values) for trial in pruned} == {3}  # of the fourth nothing would be saved


def test_a_trial_that_finishes_before_it_can_be_stopped_counts_as_finished(tmp_path):
    pool = FakePool()
    pool.stop = lambda number, state, reason=None: None
    study = run_search(tmp_path, pool, pruner="median")
    assert states(study) == ["COMPLETE"] * 12
    assert any(find_stopped_step(trial) for trial in study.trials)


def test_a_row_that_is_not_a_number_stops_a_trial(tmp_path):
    def behave(job):
        if job.number == 5:
            return [(10, float("nan")), (20, 1.0), (30, 1.0), (40, 1.0)], Outcome(State.finished, value=1.0)
        return rows_of(job, 1.0), Outcome(State.finished, value=1.0)

    study = run_search(tmp_path, FakePool(1, behave), pruner="median")
    assert states(study)[5] == "PRUNED" and find_stopped_step(study.trials[5]) == 10


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_both_directions(tmp_path, direction):
    study = run_search(tmp_path, FakePool(), direction=direction)
    values = [trial.value for trial in study.trials]
    assert study.optuna.best_value == (min if direction == "minimize" else max)(values)


def test_several_objectives(tmp_path):
    def behave(job):
        return [], Outcome(State.finished, value=(objective(job), -objective(job)))

    study = run_search(tmp_path, FakePool(2, behave), direction=["minimize", "maximize"], sampler="tpe")
    assert all(trial.values[0] == -trial.values[1] for trial in study.trials)


# --- kills


def killed_at(folder, tick, slots=1, **changes):
    with pytest.raises(Killed):
        run_search(folder, FakePool(slots, kill_at=tick), **changes)


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes", "grid"])
def test_a_killed_search_goes_on_to_the_same_trials(tmp_path, sampler):
    """W14: no trial stays at running, and the number of trials is the one that was asked for."""
    axes = [axis for axis in AXES if axis.values] if sampler == "grid" else AXES

    def behave(job):
        value = job.number / 10 + len(job.overrides[0]) % 3
        return rows_of(job, value), Outcome(State.finished, value=value)

    def run(folder, pool):
        return run_search(folder, pool, axes, sampler=sampler, pruner="median")

    expected = summarise(run(tmp_path / "whole", FakePool(1, behave)))
    for tick in (3, 11, 18):
        with pytest.raises(Killed):
            run(tmp_path / "cut", FakePool(1, behave, kill_at=tick))
    study = run(tmp_path / "cut", FakePool(1, behave))
    assert summarise(study) == expected
    assert {trial.state for trial in study.trials} <= {STATES.COMPLETE, STATES.PRUNED}


def test_trials_that_ran_go_on_with_their_point_in_their_folder(tmp_path):
    killed_at(tmp_path, 8, slots=3)
    before = {trial.number: trial.params for trial in open_study(tmp_path, options()).trials}
    pool = FakePool(3)
    study = run_search(tmp_path, pool)
    assert pool.started[:3] == [number for number in before if number >= 3][:3]
    assert all(study.trials[number].params == params for number, params in before.items())
    assert states(study) == ["COMPLETE"] * 12
    # Rows that were there are not written again by this pool, and none is reported twice.
    assert all(list(trial.intermediate_values) == [10, 20, 30, 40] for trial in study.trials)


def test_what_the_manifest_knows_is_told_without_another_attempt(tmp_path):
    killed_at(tmp_path, 3, slots=4, n_trials=4)
    known = {
        0: Outcome(State.finished, value=0.5),
        1: Outcome(State.failed, "out of memory"),
        2: Outcome(State.pruned),
    }
    pool = FakePool(4)
    study = run_search(tmp_path, pool, outcomes=known, n_trials=4)
    assert states(study) == ["COMPLETE", "FAIL", "PRUNED", "COMPLETE"] and pool.started == [3]
    assert study.trials[0].value == 0.5 and find_cause(study.trials[1]) == "out of memory"


def test_a_decision_to_stop_survives_a_kill(tmp_path):
    """Killed between the decision and the job's end: the trial does not run on."""

    class Deaf(FakePool):
        def stop(self, number, state, reason=None):
            raise Killed

    with pytest.raises(Killed):
        run_search(tmp_path, Deaf(), pruner="median")
    (running,) = [trial for trial in open_study(tmp_path, options(pruner="median")).trials if not trial.values]
    pool = FakePool()
    study = run_search(tmp_path, pool, pruner="median")
    assert study.trials[running.number].state is STATES.PRUNED and running.number not in pool.started


def test_more_trials_later_and_no_more_when_there_are_enough(tmp_path):
    first = summarise(run_search(tmp_path, FakePool(), n_trials=5))
    idle = FakePool()
    assert summarise(run_search(tmp_path, idle, n_trials=5)) == first and idle.started == []
    assert summarise(run_search(tmp_path, FakePool(), n_trials=3)) == first
    whole = run_search(tmp_path / "whole", FakePool(), n_trials=9)
    assert summarise(run_search(tmp_path, FakePool(), n_trials=9)) == summarise(whole)


def test_a_stopped_search_goes_on(tmp_path):
    """A signal: nothing new starts, what ran is left to the next invocation."""

    class Signalled(FakePool):
        def wait(self, seconds):
            if self.now == 6:
                signal.raise_signal(signal.SIGTERM)
                for job in self.running:
                    self.stop(job.number, State.preempted)
            return super().wait(seconds)

    study = run_search(tmp_path, Signalled(2))
    assert states(study) == ["COMPLETE"] * 2 + ["RUNNING"] * 2
    assert states(run_search(tmp_path, FakePool(2))) == ["COMPLETE"] * OPTIONS["n_trials"]
