"""Pictures of a search, by Matplotlib without a screen."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from llama_exp.files.writing import replaced, storage_errors
from llama_exp.limits.figures import Direction

# Okabe & Ito (2008): told apart by colour-blind readers too.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#999999"


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
    figure = Figure(figsize=(8.0, 1.6 + 2.6 * len(names)), dpi=150, layout="constrained")
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    for index, axes in enumerate(_panels(figure, len(names))):
        numbers, values = [trial.number for trial in complete], [trial.values[index] for trial in complete]
        axes.scatter(numbers, values, color=_BLUE, s=18, label="finished")
        pruned = [trial for trial in trials if trial.state is TrialState.PRUNED and trial.intermediate_values]
        if pruned and len(names) == 1:
            last = [trial.intermediate_values[trial.last_step] for trial in pruned]  # type: ignore[index]
            axes.scatter([trial.number for trial in pruned], last, color=_GREY, s=18, marker="x", label="pruned")
        keep = min if directions[index] is Direction.minimize else max
        axes.step(numbers, list(itertools.accumulate(values, keep)), color=_ORANGE, where="post", label="best so far")
        axes.set_ylabel(names[index].replace("$", r"\$"))
        axes.legend(frameon=False, fontsize=8)
    figure.axes[-1].set_xlabel("trial")
    _save(figure, path)


def draw_importance(path: Path, importance: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    """A bar for each key of the space: its share of what decides an objective; arguments as above."""
    figure = Figure(figsize=(8.0, 1.0 + 0.4 * sum(map(len, importance))), dpi=150, layout="constrained")
    for index, axes in enumerate(_panels(figure, len(names))):
        keys = list(importance[index])[::-1]
        axes.barh([key.replace("$", r"\$") for key in keys], [importance[index][key] for key in keys], color=_BLUE)
        axes.set_xlim(0, 1)
        axes.set_title(f"importance for {names[index]}".replace("$", r"\$"), fontsize=9, loc="left")
    _save(figure, path)


def _panels(figure: Figure, count: int) -> list[Any]:
    """Axes, one above the other."""
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(count, 1, squeeze=False)[:, 0])
    for axes in panels:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return panels


def _save(figure: Figure, path: Path) -> None:
    with storage_errors(path), replaced(path) as draft:
        figure.savefig(draft, format="png")
