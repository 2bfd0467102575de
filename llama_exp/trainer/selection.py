"""What figures decide while a model trains: which weights are the best so far, and whether it is time to stop.

A figure that is NaN is never better, and no improvement. What is decided at a step depends on what was measured until
then alone, and all of it is in every checkpoint: a run that is cut and continued decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_exp.files.evaluation_file import NO_FIGURES
from llama_exp.files.json_text import as_number, plain
from llama_exp.limits.figures import Direction, find_number, is_better, split_figure


@dataclass
class Measured:
    """What is known of the weights of one step.

    step: -1: nothing yet. figures: as `summary.json` has them, `validation.loss`, `evaluation.<name>.<figure>`, nested.
    """

    step: int = -1
    figures: dict[str, Any] = field(default_factory=dict)

    def add_validation(self, step: int, loss: float, perplexity: float) -> None:
        """Notes a validation; what was known of an earlier step is forgotten."""
        self._begin(step)
        self.figures["validation"] = {"loss": loss, "perplexity": perplexity}

    def add_evaluation(self, step: int, row: Mapping[str, Any]) -> None:
        """Notes the numbers in a row of an evaluation."""
        self._begin(step)
        numbers = {
            key: float(value)
            for key, value in row.items()
            if key not in NO_FIGURES and isinstance(value, int | float) and not isinstance(value, bool)
        }
        self.figures.setdefault("evaluation", {})[str(row["name"])] = numbers

    def _begin(self, step: int) -> None:
        if step != self.step:
            self.step, self.figures = step, {}

    def copy(self) -> Measured:
        """The same, which no later measurement changes."""
        return Measured.from_state(self.state())

    def state(self) -> dict[str, Any]:
        """Strict JSON."""
        return {"step": self.step, "figures": plain(self.figures)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Measured:
        """From what `state` gave; raises AttributeError, KeyError, TypeError or ValueError for anything else."""
        return cls(_as_step(state["step"]), _as_figures(state["figures"]))


class Best:
    """The best of all measured weights by one figure.

    Args:
        figure: a figure with a direction, as `limits.figures` reads it; None: nothing is the best.

    Attributes:
        measured: of the best weights so far; None: there are none.
        value: their figure.
    """

    def __init__(self, figure: str | None):
        self.figure, self._direction = _split(figure)
        self.measured: Measured | None = None
        self.value: float | None = None
        self._earlier: tuple[Measured | None, float | None] = (None, None)

    def note(self, measured: Measured) -> None:
        """Compares what was measured; a second time at the same step changes nothing."""
        value = None if self.figure is None else find_number(measured.figures, self.figure)
        if value is None:
            return
        if is_better(value, self.value, self._direction):
            self._earlier = (self.measured, self.value)
            self.measured, self.value = measured.copy(), value
        elif self.is_of(measured.step):
            self.measured = measured.copy()  # the same weights, of which more is known now

    def is_of(self, step: int) -> bool:
        """Whether the weights of this step are the best so far."""
        return self.measured is not None and self.measured.step == step

    def give_up(self, step: int) -> None:
        """Takes back that this step is the best: its weights could not be kept."""
        if self.is_of(step):
            self.measured, self.value = self._earlier

    def state(self) -> dict[str, Any]:
        """Strict JSON."""
        measured = None if self.measured is None else self.measured.state()
        return {"figure": self.figure, "value": plain(self.value), "measured": measured}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` gave, unless it is of another figure."""
        if state["figure"] == self.figure and state["measured"] is not None:
            self.value, self.measured = float(as_number(state["value"])), Measured.from_state(state["measured"])


class Patience:
    """Says when a figure has not improved for too long.

    Args:
        figure: as above; None: never.
        patience: measurements without improvement until the run ends.
        min_delta: how much better than the best one a value must be to be an improvement.
    """

    def __init__(self, figure: str | None, patience: int, min_delta: float):
        self.figure, self._direction = _split(figure)
        self._patience, self._min_delta = patience, min_delta
        self._noted, self._waited = -1, 0
        self._best: float | None = None
        self._best_step = -1

    def note(self, measured: Measured) -> None:
        """Counts what was measured; a second time at the same step changes nothing."""
        value = None if self.figure is None else find_number(measured.figures, self.figure)
        if value is None or measured.step == self._noted:
            return
        self._noted = measured.step
        worse = self._min_delta if self._direction is Direction.minimize else -self._min_delta
        if is_better(value + worse, self._best, self._direction):
            self._best, self._best_step, self._waited = value, measured.step, 0
        else:
            self._waited += 1

    @property
    def reason(self) -> str | None:
        """Why the run ends; None: it goes on."""
        if self.figure is None or self._waited < self._patience:
            return None
        best = "it never was a number" if self._best is None else f"best {self._best:.6g} at step {self._best_step}"
        more = f" by more than {self._min_delta:g}" if self._min_delta else ""
        return f"{self.figure} has not improved{more} in {self._waited} evaluations: {best}"

    def state(self) -> dict[str, Any]:
        """Strict JSON."""
        keys = {"noted": self._noted, "waited": self._waited, "best": plain(self._best), "best_step": self._best_step}
        return {"figure": self.figure, **keys}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` gave, unless it is of another figure."""
        if state["figure"] == self.figure:
            self._noted, self._waited = _as_step(state["noted"]), _as_step(state["waited"])
            self._best = None if state["best"] is None else float(as_number(state["best"]))
            self._best_step = _as_step(state["best_step"])


def _split(figure: str | None) -> tuple[str | None, Direction]:
    if figure is None:
        return None, Direction.minimize
    path, direction = split_figure(figure)
    if direction is None:
        raise ValueError(f"{figure} does not say which of its values are good ones: write {path}:min or {path}:max")
    return path, direction


def _as_step(value: Any) -> int:
    if type(value) is not int or value < -1:
        raise ValueError(f"no step: {value!r}")
    return value


def _as_figures(node: Mapping[str, Any]) -> dict[str, Any]:
    """Nested numbers; raises ValueError, TypeError or AttributeError for anything else."""
    return {
        str(key): _as_figures(value) if isinstance(value, Mapping) else float(as_number(value))
        for key, value in node.items()
    }
