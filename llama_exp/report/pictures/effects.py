"""The figure that ranks over the values of each key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from llama_exp.console.picture import COLOURS, clear_axes, literal, new_figure, save_picture
from llama_exp.report.contents import Effect, EffectLine, Report
from llama_exp.report.pictures.looks import NUM_LOOKS, SMALL, WIDTH, label_of, look_of, place, set_key_axis

_MOST_PANELS = 8


def draw_effects(report: Report, path: Path) -> None:
    """A panel for each key: mean and interval of each config, and a dot for each run; raises `StorageError`."""
    effects = report.effects[:_MOST_PANELS]
    columns = min(2, len(effects))
    rows = math.ceil(len(effects) / columns)
    figure = new_figure(WIDTH if columns == 2 else 4.5, 3.1 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for index, axes in enumerate(panels.flat):
        if index >= len(effects):
            axes.set_visible(False)
            continue
        clear_axes(axes)
        _draw_effect(axes, effects[index])
        axes.tick_params(labelsize=SMALL)
    for axes in panels[:, 0]:
        axes.set_ylabel(literal(report.figure.label), fontsize=SMALL + 1)
    save_picture(figure, path)


def _draw_effect(axes: Any, effect: Effect) -> None:
    if all(len(line.points) == 1 for line in effect.lines):  # of a search: no two configs differ in this key alone
        points = [point for line in effect.lines for point in line.points]
        xs, means = [place(effect.key, point.value) for point in points], [point.estimate.mean for point in points]
        axes.scatter(xs, means, s=16, color=COLOURS[0], linewidths=0)
        set_key_axis(axes, effect.key)
        return
    for number, line in reversed([*enumerate(effect.lines, start=1)]):  # the best on top
        _draw_line(axes, effect, line, number)
    set_key_axis(axes, effect.key)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        rest = len(effect.lines) - NUM_LOOKS
        title = f"grey: {rest} others" if rest > 0 else None
        axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=SMALL - 1, title=title,
                    title_fontsize=SMALL - 1)  # fmt: skip


def _draw_line(axes: Any, effect: Effect, line: EffectLine, number: int) -> None:
    look = look_of(number)
    xs = [place(effect.key, point.value) for point in line.points]
    means = [point.estimate.mean for point in line.points]
    if look.is_grey:
        axes.plot(xs, means, color=look.colour, linewidth=0.6, alpha=0.5)
        return
    for x, point in zip(xs, line.points, strict=True):
        if point.estimate.n == 1:  # its mark is the run
            continue
        axes.scatter([x] * len(point.run_values), point.run_values, s=9, facecolors="white", edgecolors=look.colour,
                     linewidths=0.7, zorder=4)  # fmt: skip
    has_interval = [point.estimate.low is not None for point in line.points]
    reaches = [0.0 if p.estimate.high is None else p.estimate.high - p.estimate.mean for p in line.points]
    axes.errorbar(xs, means, yerr=reaches if any(has_interval) else None, color=look.colour, marker=look.mark,
                  markersize=4, linestyle=look.line, linewidth=1.3, capsize=2.5,
                  label=label_of(line.label) if line.label else None)  # fmt: skip
