"""Figures over steps: the mean of each config over its seeds, the span of its runs around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_exp.console.picture import clear_axes, literal, new_figure, save_picture
from llama_exp.report.contents import Curve, Report
from llama_exp.report.figures import label_figure
from llama_exp.report.pictures.looks import NUM_LOOKS, SMALL, WIDTH, label_group, look_of
from llama_exp.run.figures import smoothed

_MOST_PANELS = 6
_MANY_POINTS = 40  # of a curve, from which it is smoothed


def draw_curves(report: Report, path: Path) -> None:
    """One panel for each figure; raises `StorageError`."""
    from matplotlib.ticker import MaxNLocator

    figures = list(dict.fromkeys(curve.figure for curve in report.curves))
    figures.sort(key=lambda name: (not name.startswith("validation."), name.startswith("train.")))
    figures = figures[:_MOST_PANELS]
    numbers = [group.number for group in report.groups if any(curve.group == group.number for curve in report.curves)]
    lines = min(len(numbers), NUM_LOOKS + 1)
    figure = new_figure(WIDTH, 2.6 * len(figures) + 0.22 * math.ceil(lines / 2) + 0.3)
    panels = figure.subplots(len(figures), 1, squeeze=False, sharex=True)[:, 0]
    for axes, name in zip(panels, figures, strict=True):
        clear_axes(axes)
        of_figure = [curve for curve in report.curves if curve.figure == name]
        for number in reversed(numbers):  # the best on top
            _draw_group(axes, report, number, [curve for curve in of_figure if curve.group == number])
        axes.set_ylabel(literal(label_figure(name)), fontsize=SMALL + 1)
        axes.tick_params(labelsize=SMALL)
        axes.margins(x=0.02)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1].set_xlabel("optimizer step", fontsize=SMALL + 1)
    _add_legend(figure, panels[0], len(numbers))
    save_picture(figure, path)


def _draw_group(axes: Any, report: Report, number: int, curves: Sequence[Curve]) -> None:
    averaged = [curve for curve in curves if report.run(curve.run).reason is None]
    look = look_of(number)
    label = None if look.is_grey else label_group(report, number)
    for curve in curves if look.is_grey else [curve for curve in curves if curve not in averaged]:
        axes.plot(curve.steps, curve.values, color=look.colour, alpha=0.4, linewidth=0.6, zorder=1)
    if look.is_grey or not averaged:
        return
    steps, means, lows, highs = _average(averaged)
    if len(steps) > _MANY_POINTS:
        window = max(5, len(steps) // 15)
        means, lows, highs = (smoothed(values, window) for values in (means, lows, highs))
    every = max(1, len(steps) // 10)
    axes.plot(steps, means, color=look.colour, linestyle=look.line, linewidth=1.5, marker=look.mark, markersize=3.5,
              markevery=every, label=label, zorder=3)  # fmt: skip
    if len(averaged) > 1:
        axes.fill_between(steps, lows, highs, color=look.colour, alpha=0.15, linewidth=0, zorder=2)


def _average(curves: Sequence[Curve]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps that all curves have, with mean, least and greatest value."""
    tables = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    columns = [[table[step] for table in tables] for step in steps]
    means = [math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan for values in columns]
    return steps, means, [min(values) for values in columns], [max(values) for values in columns]


def _add_legend(figure: Any, axes: Any, num_groups: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if not handles or num_groups < 2:
        return
    handles, labels = handles[::-1], labels[::-1]
    title = "mean over seeds; shaded: from the lowest to the highest run"
    title += f"; grey: the other {num_groups - NUM_LOOKS} configs" if num_groups > NUM_LOOKS else ""
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL, title=title,
                  title_fontsize=SMALL)  # fmt: skip
