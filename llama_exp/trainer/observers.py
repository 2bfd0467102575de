"""Those who watch a training: metrics file, samples, progress, logger, and the user's callbacks."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from llama_exp.errors import CallbackError, LlamaExpError, Problem
from llama_exp.files.process import Process
from llama_exp.limits.trainer import is_own_observer
from llama_exp.trainer.checkpoint import Checkpoint
from llama_exp.trainer.contents import restore_part

_SHOWN = 300  # characters of what an exception says


class Observers:
    """Observers by name; they report to the outside, so that only the writer of a run has any.

    Args:
        observers: name -> object with any of on_start(facts), on_step(step, loss, tokens) after every step,
            on_metrics(row), on_evaluation(row), on_sample(step, prompt, text), on_phase(phase) with what happens beside
            the steps (validating, sampling, evaluating, saving; None: nothing), on_finish(status), with
            bind(run) before all of them, a `RunHandle`, and with both or none of state(), restore(state).
        process: which of the run's processes this is.
    """

    def __init__(self, observers: Mapping[str, Any], process: Process):
        self._observers = dict(observers) if process.is_writer else {}

    @property
    def names(self) -> set[str]:
        """Of all of them."""
        return set(self._observers)

    def bind(self, make_handle: Callable[[str], Any]) -> None:
        """Gives each that wants it what `make_handle(name)` makes."""
        for name, observer in self._observers.items():
            if hasattr(observer, "bind"):
                _call(name, observer, "bind", make_handle(name))

    def tell(self, method: str, *arguments) -> None:
        """Calls a method of each, in order.

        Raises:
            CallbackError: a callback of the user's raised an exception; it names callback and line.
            Exception: one of ours did.
        """
        for name, observer in self._observers.items():
            if hasattr(observer, method):
                _call(name, observer, method, *arguments)

    def state(self) -> dict[str, Any]:
        """Their states by name, JSON for a checkpoint; raises as `tell`."""
        return {name: _call(name, one, "state") for name, one in self._observers.items() if hasattr(one, "state")}

    def restore(self, saved: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        """Goes on from the states that `checkpoint` holds; those of observers that are no longer there are left out.

        Raises:
            InputError: an observer cannot take its state.
        """
        for name, state in saved.items():
            observer: Any = self._observers.get(name)
            if hasattr(observer, "restore"):
                restore_part(checkpoint, f"observers.{name}", state, observer.restore)


def _call(name: str, observer: Any, method: str, *arguments: Any) -> Any:
    if is_own_observer(name):
        return getattr(observer, method)(*arguments)
    try:
        return getattr(observer, method)(*arguments)
    except LlamaExpError:
        raise
    except Exception as error:
        raise CallbackError(_failure(name, method, error)) from error


def _failure(name: str, method: str, error: Exception) -> Problem:
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())[:_SHOWN]
    found = f"{type(error).__name__}: {said} (line {last.lineno} of {last.filename})"
    action = f"mend it and go on with resume=auto, or take it out: trainer.callbacks.{name}"
    return Problem(f"the callback's {method} raised an exception", f"trainer.callbacks.{name}", found, action)
