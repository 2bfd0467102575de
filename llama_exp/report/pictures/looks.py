"""How configs are told apart in pictures: the best ones by colour, mark and line, all others grey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llama_exp.console.picture import COLOURS, GREY, literal
from llama_exp.report.contents import Key, Report, Scale
from llama_exp.report.grouping import format_setting
from llama_exp.report.links import one_line
from llama_exp.results.decisive import canonical

WIDTH = 7.0  # inches: a page's text
SMALL = 8  # points
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)))
_LONGEST = 48
NUM_LOOKS = len(COLOURS)


@dataclass(frozen=True)
class Look:
    """Of a config, or of a line."""

    colour: str
    mark: str
    line: Any
    is_grey: bool


def look_of(number: int) -> Look:
    """Of the config or line with a number from 1 on; only the first ones have a colour."""
    if number > NUM_LOOKS:
        return Look(GREY, ".", "-", True)
    return Look(COLOURS[number - 1], _MARKS[number - 1], _LINES[number - 1], False)


def label_of(text: str) -> str:
    """A label that Matplotlib shows as it is, of limited length."""
    line = one_line(text)
    return literal(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}...")


def label_group(report: Report, number: int) -> str:
    """`1: rank=8`, for a legend."""
    return label_of(f"{number}: {report.group(number).label}")


def place(key: Key, value: Any) -> float:
    """Where a value of a key stands on its axis: a number by itself, others by their place among all."""
    if key.scale is Scale.categories:
        return [canonical(other) for other in key.values].index(canonical(value))
    return float(value)


def set_key_axis(axes: Any, key: Key) -> None:
    """Scale and ticks of the horizontal axis: the values that were run."""
    from matplotlib.ticker import NullLocator

    if key.scale is Scale.log:
        axes.set_xscale("log")
    places = [place(key, value) for value in key.values]
    texts = [label_of(format_setting(value)) for value in key.values]
    if len(places) <= 8:
        axes.set_xticks(places, texts, fontsize=SMALL, rotation=30 if max(map(len, texts)) > 8 else 0)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(literal(key.path), fontsize=SMALL + 1)
    if key.scale is Scale.categories:
        axes.set_xlim(-0.5, len(places) - 0.5)
