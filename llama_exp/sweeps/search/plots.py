"""Pictures of a search, by Matplotlib without a screen."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from llama_exp.console.picture import COLOURS, GREY, clear_axes, literal, new_figure, save_picture
from llama_exp.limits.figures import Direction

_BLUE, _ORANGE, *_ = COLOURS


def draw_history(
    path: Path, trials: Sequence[FrozenTrial], names: Sequence[str], directions: Sequence[Direction]
) -> None:
    """Objectives of the finished trials over their numbers, and the best so far; pruned ones at their last value.

    Args:
        path: a PNG file, replaced atomically.
        trials: all of them.
        names: of the objectives.
        directions: of each.

    Raises:
        StorageError: it cannot be written.
    """
    figure = new_figure(8.0, 1.6 + 2.6 * len(names))
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    for index, axes in enumerate(_panels(figure, len(names))):
        numbers, values = [trial.number for trial in complete], [trial.values[index] for trial in complete]
        axes.scatter(numbers, values, color=_BLUE, s=18, label="finished")
        pruned = [trial for trial in trials if trial.state is TrialState.PRUNED and trial.intermediate_values]
        if pruned and len(names) == 1:
            last = [trial.intermediate_values[trial.last_step] for trial in pruned]  # type: ignore[index]
            axes.scatter([trial.number for trial in pruned], last, color=GREY, s=18, marker="x", label="pruned")
        keep = min if directions[index] is Direction.minimize else max
        axes.step(numbers, list(itertools.accumulate(values, keep)), color=_ORANGE, where="post", label="best so far")
        axes.set_ylabel(literal(names[index]))
        axes.legend(frameon=False, fontsize=8)
    figure.axes[-1].set_xlabel("trial")
    save_picture(figure, path)


def draw_importance(path: Path, importance: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    """A bar for each key of the space: its share of what decides an objective; arguments as above."""
    figure = new_figure(8.0, 1.0 + 0.4 * sum(map(len, importance)))
    for index, axes in enumerate(_panels(figure, len(names))):
        keys = list(importance[index])[::-1]
        axes.barh([literal(key) for key in keys], [importance[index][key] for key in keys], color=_BLUE)
        axes.set_xlim(0, 1)
        axes.set_title(literal(f"importance for {names[index]}"), fontsize=9, loc="left")
    save_picture(figure, path)


def _panels(figure: Any, count: int) -> list[Any]:
    """Axes, one above the other."""
    panels = list(figure.subplots(count, 1, squeeze=False)[:, 0])
    for axes in panels:
        clear_axes(axes)
    return panels
