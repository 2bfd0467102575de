"""What a checkpoint says beside its arrays is believed in the form that the loop writes, and in no other."""

import pytest

from llama_exp.errors import InputError
from llama_exp.files.process import ALONE
from llama_exp.trainer.checkpoint import Checkpoint
from llama_exp.trainer.contents import read_contents
from llama_exp.trainer.counters import Counters
from llama_exp.trainer.observers import Observers

PROGRESS = {"step": 40, "validated_step": -1, "tokens": 5, "seconds": 1.5, "validation_loss": None, "best_step": 20}


def checkpoint(**state):
    whole = {"progress": PROGRESS, "seeds": [[1, 2], [3]], "observers": {"metrics": {"offset": 5}}}
    return Checkpoint(step=40, tensors={}, state=whole | state)


def test_what_the_loop_wrote_is_read():
    found = read_contents(checkpoint())
    assert found.counters == Counters(**PROGRESS) and found.counters.skipped_steps == 0
    assert [seed.tolist() for seed in found.seeds] == [[1, 2], [3]]
    assert found.observers == {"metrics": {"offset": 5}}


FOREIGN = {
    "no progress": ({"progress": None}, "progress: None"),
    "progress is a list": ({"progress": []}, "progress: []"),
    "unknown counter": ({"progress": {**PROGRESS, "x": 1}}, "progress: {"),
    "another step": ({"progress": {**PROGRESS, "step": 39}}, "progress.step: 39, of a checkpoint of step 40"),
    "step is true": ({"progress": {**PROGRESS, "step": True}}, "progress.step: True"),
    "tokens is text": ({"progress": {**PROGRESS, "tokens": "5"}}, "progress.tokens: 5"),
    "tokens is missing": ({"progress": {**PROGRESS, "tokens": None}}, "progress.tokens: None"),
    "steps are negative": ({"progress": {**PROGRESS, "skipped_steps": -5}}, "progress.skipped_steps: -5"),
    "loss is a list": ({"progress": {**PROGRESS, "validation_loss": [1]}}, "progress.validation_loss: [1]"),
    "seeds is text": ({"seeds": "x"}, "seeds: x"),
    "a seed is a number": ({"seeds": [5]}, "seeds: [5]"),
    "a seed is too large": ({"seeds": [[2**64]]}, "seeds: [["),
    "a seed is a fraction": ({"seeds": [[0.5]]}, "seeds: [[0.5]]"),
    "no observers": ({"observers": 5}, "observers: 5"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_any_other_form_is_refused(name):
    change, found = FOREIGN[name]
    with pytest.raises(InputError, match="of another form") as caught:
        read_contents(checkpoint(**change))
    (problem,) = caught.value.problems
    assert problem.found.startswith(found) and "resume=none" in problem.action


class Strict:
    """An observer that wants a number."""

    def restore(self, state):
        self.number = state["number"] + 1


@pytest.mark.parametrize("state", [{}, [], None, {"number": "x"}, 5])
def test_a_state_that_an_observer_cannot_take_is_refused(state):
    observers = Observers({"mine": Strict()}, ALONE)
    with pytest.raises(InputError, match=r"of another form.*\n.*observers\.mine"):
        observers.restore({"mine": state}, checkpoint())
    observers.restore({"mine": {"number": 1}, "of a callback that is gone": state}, checkpoint())
