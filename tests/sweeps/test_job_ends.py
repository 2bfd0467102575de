import pickle

import pytest

from llama_exp.sweeps.child import Result, describe
from llama_exp.sweeps.ends import decide
from llama_exp.sweeps.jobs import State


def exit_status(code):
    return code << 8


RAISED = Result(1, raised="ValueError: no", error=pickle.dumps(ValueError("no")))


@pytest.mark.parametrize(
    ("status", "result", "state", "cause", "code"),
    [
        (exit_status(0), Result(0, value=pickle.dumps(2.5)), State.finished, None, 0),
        (9, Result(0, value=pickle.dumps(2.5)), State.finished, None, 0),  # killed behind its last line
        (exit_status(1), RAISED, State.failed, "raised ValueError: no", 1),
        (exit_status(9), None, State.failed, "ended its process with exit code 9", 9),
        (exit_status(0), None, State.failed, "ended its process with exit code 0 before it returned", 0),
        (11, None, State.failed, "was killed by SIGSEGV", None),
        (11 | 0x80, None, State.failed, "was killed by SIGSEGV", None),  # with a core file
        (exit_status(75), Result(75, raised="Preempted: x"), State.preempted, "raised Preempted: x", 75),
        (exit_status(130), Result(130), State.interrupted, "ended its process with exit code 130", 130),
    ],
)
def test_a_job_that_ends_by_itself(status, result, state, cause, code):
    outcome = decide(status, result, None, None)
    assert (outcome.state, outcome.cause, outcome.exit_code) == (state, cause, code)


def test_value_and_error_arrive():
    assert decide(0, Result(0, value=pickle.dumps(2.5)), None, None).value == 2.5
    error = decide(exit_status(1), RAISED, None, None).error
    assert isinstance(error, ValueError) and error.args == ("no",)


@pytest.mark.parametrize("state", [State.interrupted, State.preempted, State.pruned])
def test_a_job_that_was_asked_to_stop_did(state):
    for status, result in ((exit_status(75), Result(75)), (15, None), (9, None)):
        outcome = decide(status, result, state, "because")
        assert (outcome.state, outcome.cause) == (state, "because")


def test_a_job_that_failed_before_it_was_asked_has_failed():
    assert decide(exit_status(1), RAISED, State.interrupted, "because").cause == "raised ValueError: no"
    assert decide(exit_status(0), Result(0, value=pickle.dumps(1)), State.pruned, "because").state is State.finished


def test_a_job_whose_time_is_over_has_failed_with_a_checkpoint_or_without():
    for status, result in ((exit_status(75), Result(75)), (9, None), (exit_status(1), RAISED)):
        outcome = decide(status, result, State.failed, "took more than 3 s (job_timeout_seconds)")
        assert (outcome.state, outcome.cause) == (State.failed, "took more than 3 s (job_timeout_seconds)")


def test_the_kernels_reason_goes_before_the_signals_name():
    assert decide(9, None, None, "out of memory: the kernel killed it").cause == "out of memory: the kernel killed it"


def test_an_error_in_one_line():
    assert describe(ValueError("\n  first\nsecond")) == "ValueError: first"
    assert describe(KeyError()) == "KeyError"
    assert "hf_" + "a" * 34 not in describe(ValueError("token hf_" + "a" * 34))
