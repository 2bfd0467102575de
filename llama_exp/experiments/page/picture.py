"""What a verdict rests on, drawn: points of runs, fits, and what was sought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_exp.console.picture import COLOURS, GREY, clear_axes, literal, new_figure, save_picture
from llama_exp.protocol.obtained import Drawing, Series

_WIDTH, _HEIGHT, _SMALL = 6.0, 3.6, 8


def draw_answer(drawing: Drawing, path: Path) -> None:
    """Writes a PNG file; raises `StorageError`."""
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = figure.subplots()
    clear_axes(axes)
    for number, series in enumerate(drawing.series):
        _draw_series(axes, series, COLOURS[number % len(COLOURS)] if number < len(COLOURS) else GREY)
    if drawing.is_log_x:
        axes.set_xscale("log")
    if drawing.is_log_y:
        axes.set_yscale("log")
    axes.set_xlabel(literal(drawing.x), fontsize=_SMALL + 1)
    axes.set_ylabel(literal(drawing.y), fontsize=_SMALL + 1)
    axes.tick_params(labelsize=_SMALL)
    if any(series.label for series in drawing.series):
        axes.legend(frameon=False, fontsize=_SMALL)
    save_picture(figure, path)


def _draw_series(axes: Any, series: Series, colour: str) -> None:
    label = literal(series.label) if series.label else None
    if series.points:
        xs, ys = zip(*series.points, strict=True)
        axes.scatter(xs, ys, s=14, color=colour, linewidths=0, label=label, zorder=3)
    if series.line:
        xs, ys = zip(*series.line, strict=True)
        axes.plot(xs, ys, color=colour, linewidth=1.2, label=None if series.points else label)
    if series.marked is not None:
        axes.axvline(series.marked, color=colour, linewidth=0.8, linestyle=":")
