"""Observers are told what they listen to."""

from llama_exp.files.process import ALONE
from llama_exp.trainer.checkpoint import Checkpoint
from llama_exp.trainer.observers import Observers


class Rows:
    """Uses one method of six."""

    def __init__(self):
        self.rows = []

    def on_metrics(self, row):
        self.rows.append(row)


class Counting(Rows):
    def state(self):
        return {"rows": len(self.rows)}

    def restore(self, state):
        self.rows = [None] * state["rows"]


def test_methods_that_are_not_there_are_not_called():
    rows, counting = Rows(), Counting()
    observers = Observers({"rows": rows, "counting": counting}, ALONE)
    for method, arguments in (("on_start", ({},)), ("on_metrics", ({"step": 1},)), ("on_finish", ("finished",))):
        observers.tell(method, *arguments)
    assert rows.rows == counting.rows == [{"step": 1}]
    assert observers.state() == {"counting": {"rows": 1}}
    saved = {"counting": {"rows": 3}, "rows": {}, "gone": {}}
    observers.restore(saved, Checkpoint(step=3, tensors={}, state={"observers": saved}))
    assert len(counting.rows) == 3 and len(rows.rows) == 1
