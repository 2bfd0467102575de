"""Why a run ends before its last step though nothing went wrong: it was asked to by a callback, or has learned enough.

The first reason counts. It is in every later checkpoint, so that a run that is cut between its decision and its end
ends all the same when it goes on. One that goes on without whoever asked (the callback is gone from the configuration)
trains on.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

_log = logging.getLogger(__name__)


class Ending:
    """The request to end, if there is one.

    Attributes:
        by: who asked: name of a callback, or `trainer.overfit_below`.
        reason: in words; None: nobody asked.
    """

    def __init__(self) -> None:
        self.by: str | None = None
        self.reason: str | None = None

    def request(self, by: str, reason: str) -> None:
        """Ends the run after the present step, which is validated, evaluated and saved as a last one is."""
        if self.reason is None:
            self.by, self.reason = by, reason

    def state(self) -> dict[str, Any] | None:
        """Strict JSON."""
        return None if self.reason is None else {"by": self.by, "reason": self.reason}

    def restore(self, state: Mapping[str, Any] | None, askers: Collection[str]) -> None:
        """Takes what `state` gave, if the one who asked is still there."""
        if state is None:
            return
        by, reason = str(state["by"]), str(state["reason"])
        if by in askers:
            self.by, self.reason = by, reason
        else:
            _log.info("%s had ended the run (%s) and is gone: it goes on", by, reason)


class RunHandle:
    """What a callback gets in `bind(run)`, before anything else: the model, the trainer, and the way to stop.

    Attributes:
        model: the `LlamaCausalLM` that trains; `run.model.backbone` has its weights.
        trainer: the `Trainer`.
    """

    def __init__(self, name: str, trainer: Any, model: Any, ending: Ending):
        self.model, self.trainer = model, trainer
        self._name, self._ending = name, ending

    @property
    def step(self) -> int:
        """Finished optimizer steps."""
        return self.trainer.step

    def stop(self, reason: str) -> None:
        """Ends the run in order after the present step: validated, evaluated, saved, exported, status `finished`.

        Args:
            reason: one line; `stopped_early` of summary.json.
        """
        self._ending.request(self._name, " ".join(str(reason).split()) or "no reason was given")
