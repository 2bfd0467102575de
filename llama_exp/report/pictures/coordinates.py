"""Parallel coordinates: an axis for each key and one for the figure, a line for each run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.console.picture import GREY, literal, new_figure, save_picture
from llama_exp.report.contents import CoordinateLine, Coordinates, Report
from llama_exp.report.pictures.looks import SMALL, WIDTH, label_of

_COLOURS = "cividis_r"  # the same order of light and dark for colour-blind readers and on paper
_BETWEEN_TICKS = 0.055  # of an axis: the height of a line of text
_LONG_LABEL = 14
_BEHIND_TEXT = {"facecolor": "white", "alpha": 0.75, "pad": 0.6, "linewidth": 0}


def draw_coordinates(report: Report, path: Path) -> None:
    """Good runs are dark and drawn last; raises `StorageError`."""
    found = report.coordinates
    assert found is not None
    import matplotlib

    colours = matplotlib.colormaps[_COLOURS]
    figure = new_figure(max(WIDTH, 1.3 * len(found.axes)), 3.4)
    axes = figure.subplots()
    lines = sorted(found.lines, key=lambda line: line.positions[-1] or 0.0)
    width = 1.2 if len(lines) <= 100 else 0.6
    for line in lines:
        xs, ys = _bend(line)
        axes.plot(xs, ys, color=colours(0.15 + 0.85 * (line.positions[-1] or 0.0)), linewidth=width, alpha=0.85)
    _draw_axes(axes, found)
    axes.set_title("each line is a run; the darker, the better", fontsize=SMALL, color="#444444", loc="left", pad=30)
    save_picture(figure, path)


def _draw_axes(axes: Any, found: Coordinates) -> None:
    for x, axis in enumerate(found.axes):
        axes.axvline(x, color=GREY, linewidth=1.0, zorder=3)
        is_last = x == len(found.axes) - 1
        for position, text in _thin_out(axis.ticks):
            axes.annotate(label_of(text), (x, position), (5, 0), textcoords="offset points", fontsize=SMALL - 1,
                          va="center", zorder=4, bbox=_BEHIND_TEXT)  # fmt: skip
        label = axis.label.partition(" (")[0] if is_last else axis.label
        axes.annotate(literal(_in_two_lines(label)), (x, 1.0), (0, 8), textcoords="offset points", fontsize=SMALL,
                      ha="left" if x == 0 else "center", va="bottom")  # fmt: skip
    axes.set_axis_off()
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlim(-0.05, len(found.axes) - 1 + 0.3)


def _thin_out(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """From the top those whose texts do not touch, and the lowest."""
    kept: list[tuple[float, str]] = []
    for tick in sorted(ticks, reverse=True):
        if not kept or kept[-1][0] - tick[0] >= _BETWEEN_TICKS:
            kept.append(tick)
    lowest = min(ticks)
    return kept if kept[-1] == lowest else [*kept[:-1], lowest]


def _in_two_lines(label: str) -> str:
    """A long name broken behind the underscore, or at the blank, that is nearest to its middle."""
    places = [index + 1 for index, letter in enumerate(label) if letter in "_. "]
    if len(label) <= _LONG_LABEL or not places:
        return label
    middle = min(places, key=lambda place: abs(place - len(label) / 2))
    return f"{label[:middle].rstrip()}\n{label[middle:]}"


def _bend(line: CoordinateLine) -> tuple[np.ndarray, np.ndarray]:
    """The line through its positions, level at each axis so that lines which meet there can be followed."""
    shares = np.linspace(0.0, 1.0, 20)
    eased = shares * shares * (3.0 - 2.0 * shares)
    xs, ys = [], []
    known = [(x, y) for x, y in enumerate(line.positions) if y is not None]
    for (left, low), (right, high) in zip(known, known[1:], strict=False):
        xs.append(left + (right - left) * shares)
        ys.append(low + (high - low) * eased)
    return np.concatenate(xs), np.concatenate(ys)
