"""Jobs of trials, and what their outcomes mean."""

import json
from fractions import Fraction

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial
from searching import AXES, freeze_into, options

from llama_exp.sweeps.jobs import Outcome, State
from llama_exp.sweeps.search.space import find_distributions
from llama_exp.sweeps.search.trials import judge, make_job


def test_a_job_has_the_number_of_its_trial_and_its_point_behind_the_constants(tmp_path):
    params = {"optimizer.learning_rate": 1.25e-05, "lora.rank": "8", "layers": 3}
    trial = create_trial(state=TrialState.RUNNING, params=params, distributions=find_distributions(AXES))
    trial.number = 7
    job = make_job(trial, AXES, ["name=x", "seed=1"], freeze_into(tmp_path))
    assert job.number == 7
    assert job.overrides == ("optimizer.learning_rate=1.25e-05", "lora.rank=8", "layers=3")
    assert job.all_overrides == ("name=x", "seed=1", *job.overrides)


@pytest.mark.parametrize("value", [1, 2.5, np.float32(2.5), np.int64(3), Fraction(1, 2), [0.5], (0.5,)])
def test_numbers_of_any_kind_count(tmp_path, value):
    verdict = judge(Outcome(State.finished, value=value), tmp_path, options())
    assert verdict.state is TrialState.COMPLETE and type(verdict.values[0]) is float


@pytest.mark.parametrize("value", [True, "0.5", None, {}, [], [1.0, 2.0], 1j, [None]])
def test_what_is_no_number_fails(tmp_path, value):
    verdict = judge(Outcome(State.finished, value=value), tmp_path, options())
    assert verdict.state is TrialState.FAIL and "returned" in verdict.cause


@pytest.mark.parametrize("state", [State.interrupted, State.preempted, State.pending, State.running])
def test_what_can_go_on_is_not_told(tmp_path, state):
    assert judge(Outcome(state), tmp_path, options()) is None


def test_objectives_are_read_from_the_summary(tmp_path):
    chosen = options(direction=["minimize", "maximize"], objectives=["validation.best", "tokens_per_second"])
    outcome = Outcome(State.finished, value=9.0)
    assert "has no summary.json" in judge(outcome, tmp_path, chosen).cause
    (tmp_path / "summary.json").write_text(json.dumps({"validation": {"best": 1.5}}))
    assert judge(outcome, tmp_path, chosen).cause == "has no tokens_per_second in its summary.json"
    (tmp_path / "summary.json").write_text(json.dumps({"validation": {"best": 1.5}, "tokens_per_second": 800}))
    assert judge(outcome, tmp_path, chosen).values == (1.5, 800.0)
    (tmp_path / "summary.json").write_text(json.dumps({"validation": {"best": "NaN"}, "tokens_per_second": 800}))
    assert judge(outcome, tmp_path, chosen).cause == "returned nan, which is no finite number"
