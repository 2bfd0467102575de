"""Those who watch a training: metrics file, samples, progress, logger, and the user's callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_exp.files.process import Process
from llama_exp.trainer.checkpoint import Checkpoint
from llama_exp.trainer.contents import foreign


class Observers:
    """Observers by name; they report to the outside, so that only the writer of a run has any.

    Args:
        observers: name -> object with any of on_start(facts), on_step(step, loss, tokens) after every step,
            on_metrics(row), on_sample(step, prompt, text), on_phase(phase) with what happens beside the steps
            (validating, sampling, saving; None: nothing), on_finish(status), and with both or none of state(),
            restore(state).
        process: which of the run's processes this is.
    """

    def __init__(self, observers: Mapping[str, Any], process: Process):
        self._observers = dict(observers) if process.is_writer else {}

    def tell(self, method: str, *arguments) -> None:
        """Calls a method of each, in order."""
        for observer in self._observers.values():
            if hasattr(observer, method):
                getattr(observer, method)(*arguments)

    def state(self) -> dict[str, Any]:
        """Their states by name, JSON for a checkpoint."""
        return {name: observer.state() for name, observer in self._observers.items() if hasattr(observer, "state")}

    def restore(self, saved: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        """Goes on from the states that `checkpoint` holds; those of observers that are no longer there are left out.

        Raises:
            InputError: an observer cannot take its state.
        """
        for name, state in saved.items():
            if not hasattr(self._observers.get(name), "restore"):
                continue
            try:
                self._observers[name].restore(state)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise foreign(checkpoint, f"observers.{name}", f"{state} ({error!r})") from error
