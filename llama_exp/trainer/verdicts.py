"""All that figures and callbacks have decided of a run, as one part of its checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from llama_exp.trainer.checkpoint import Checkpoint
from llama_exp.trainer.contents import restore_part
from llama_exp.trainer.ending import Ending
from llama_exp.trainer.selection import Best, Measured, Patience

_log = logging.getLogger(__name__)


class Verdicts:
    """Which weights are the best, and whether the run ends early.

    Args:
        keep_best: figure of the best weights, or None.
        stop_early: figure of early stopping, or None.
        patience: measurements without improvement.
        min_delta: the smallest improvement.

    Attributes:
        best: weights so far.
        ending: takes requests to end the run.
    """

    def __init__(self, keep_best: str | None, stop_early: str | None, patience: int, min_delta: float):
        self.best, self.ending = Best(keep_best), Ending()
        self._patience = Patience(stop_early, patience, min_delta)

    @property
    def stopped(self) -> str | None:
        """Why the run ends before its last step; None: it does not."""
        return self.ending.reason or self._patience.reason

    def note(self, measured: Measured) -> None:
        """Decides by what was measured; a second time by the same changes nothing."""
        self.best.note(measured)
        self._patience.note(measured)

    def needed_step(self, step: int) -> int | None:
        """The earlier checkpoint that one of this step must not outlive; None: there is none."""
        return None if self.best.measured is None or self.best.is_of(step) else self.best.measured.step

    def state(self) -> dict[str, Any]:
        """Strict JSON."""
        return {"best": self.best.state(), "patience": self._patience.state(), "ending": self.ending.state()}

    def restore(self, checkpoint: Checkpoint, askers: Collection[str]) -> None:
        """Takes what `state` gave to a checkpoint, the requests of `askers` only.

        Raises:
            InputError: it is of another form.
        """
        parts = {
            "best": self.best.restore,
            "patience": self._patience.restore,
            "ending": lambda state: self.ending.restore(state, askers),
        }
        for part, restore in parts.items():
            if part in checkpoint.state:
                restore_part(checkpoint, part, checkpoint.state[part], restore)

    def forget_best(self) -> None:
        """Says that the checkpoint of the best weights is gone; the best from here on count."""
        assert self.best.measured is not None
        text = "the checkpoint of the best weights (step %d) is gone or damaged: the best from here on are kept"
        _log.warning(text, self.best.measured.step)
        self.best.measured = self.best.value = None

    def describe_best(self) -> dict[str, Any] | None:
        """Figure, step and value of the best weights."""
        if self.best.measured is None:
            return None
        return {"figure": self.best.figure, "step": self.best.measured.step, "value": self.best.value}
