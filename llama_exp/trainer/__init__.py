"""The training loop, one step of it, evaluation, checkpoints, signals.

`Trainer` and `Result` load Keras when they are first used; `Checkpoints` never does.
"""

from llama_exp.trainer.checkpoint import Checkpoint, Checkpoints, load

__all__ = ["Checkpoint", "Checkpoints", "Result", "Trainer", "load"]


def __getattr__(name: str):
    if name in ("Trainer", "Result"):
        from llama_exp.trainer import loop

        return getattr(loop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
