"""The training loop, one step of it, evaluation, checkpoints.

`Trainer` loads Keras when it is first used; the others never do.
"""

from llama_exp.trainer.checkpoint import Checkpoint, Checkpoints, load
from llama_exp.trainer.counters import Result

__all__ = ["Checkpoint", "Checkpoints", "Result", "Trainer", "load"]


def __getattr__(name: str):
    if name == "Trainer":
        from llama_exp.trainer.loop import Trainer

        return Trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
