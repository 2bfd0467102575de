"""A claim: the points and the fit that it rests on, above its interval beside the expected range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_exp.console.picture import COLOURS, GREY, clear_axes, literal, new_figure, save_picture
from llama_exp.protocol import ClaimResult, Drawing, Obtained
from llama_exp.report.claims import name_experiment, show_expected, show_settings, show_verdict
from llama_exp.report.pictures.looks import SMALL, label_of, look_of

_WIDTH, _HEIGHT = 5.6, 4.6  # inches
_ROOM = 0.25  # share of the strip beside what it shows
_MOST_TICKS = 7  # values of an axis that are all named
_DECADE = 10.0


def draw_claim(result: ClaimResult, path: Path) -> None:
    """The picture of a claim that the runs answer; raises `StorageError`."""
    assert result.obtained is not None
    figure = new_figure(_WIDTH, _HEIGHT)
    above, strip = figure.subplots(2, 1, height_ratios=[5, 1])
    figure.suptitle(label_of(label_claim(result)), fontsize=SMALL + 2)
    _draw_points(above, result.obtained.drawing, result.claim.arguments)
    _draw_strip(strip, result, result.obtained)
    save_picture(figure, path)


def label_claim(result: ClaimResult) -> str:
    """Name and verdict, for a caption."""
    quick = f", {name_experiment(result.experiment)}" if result.experiment.is_quick else ""
    return f"Claim {result.name}: {show_verdict(result)}{quick}"


def choose_span(result: ClaimResult, obtained: Obtained) -> tuple[float, float]:
    """Ends of an axis that shows all finite ends of the interval and of the expected range, with room beside them."""
    expected = result.claim.expected
    stated = [expected.low, expected.high, result.claim.published, obtained.low, obtained.high, obtained.value]
    shown = [value for value in stated if value is not None and math.isfinite(value)]
    size = max(shown) - min(shown) or abs(shown[0]) or 1.0
    return min(shown) - _ROOM * size, max(shown) + _ROOM * size


def _draw_points(axes: Any, drawing: Drawing, arguments: Mapping[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    clear_axes(axes)
    for number, series in enumerate(drawing.series, start=1):
        look = look_of(number)
        points = [(x, y) for x, y in series.points if math.isfinite(y)]
        axes.scatter([x for x, _ in points], [y for _, y in points], s=12, color=look.colour, marker=look.mark,
                     linewidths=0, alpha=0.8, label=_name_series(series.label, arguments))  # fmt: skip
        axes.plot([x for x, _ in series.line], [y for _, y in series.line], color=look.colour, linewidth=1.2)
        if series.marked is not None:
            axes.axvline(series.marked, color=look.colour, linestyle=":", linewidth=1.0)
    if drawing.is_log_x:
        axes.set_xscale("log")
        _name_ticks(axes.xaxis, [x for series in drawing.series for x, _ in series.points])
    elif all(x.is_integer() for series in drawing.series for x, _ in series.points):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if drawing.is_log_y:
        axes.set_yscale("log")
        _name_ticks(axes.yaxis, [y for series in drawing.series for _, y in series.points if math.isfinite(y)])
    axes.set_xlabel(literal(drawing.x), fontsize=SMALL + 1)
    axes.set_ylabel(literal(drawing.y), fontsize=SMALL + 1)
    axes.tick_params(labelsize=SMALL, which="both")
    if any(series.label for series in drawing.series):
        axes.legend(frameon=False, fontsize=SMALL - 1)


def _name_series(label: str, arguments: Mapping[str, Any]) -> str | None:
    """What an arm is, `lora.rank=128`, rather than its role, `of`."""
    settings = arguments.get(label)
    return (label_of(show_settings(settings) if isinstance(settings, Mapping) else label)) or None


def _name_ticks(axis: Any, values: Sequence[float]) -> None:
    """Plain numbers on a logarithmic axis: the values themselves where they are few, else a few round ones."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

    distinct = sorted(set(values))
    if len(distinct) <= _MOST_TICKS:
        axis.set_major_locator(FixedLocator(distinct))
    else:
        is_narrow = distinct[-1] / distinct[0] < _DECADE
        axis.set_major_locator(MaxNLocator(5) if is_narrow else LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_strip(axes: Any, result: ClaimResult, obtained: Obtained) -> None:
    """The interval, with an arrow where it is open, before the expected range."""
    low, high = choose_span(result, obtained)
    expected = result.claim.expected
    band = (low if expected.low is None else expected.low, high if expected.high is None else expected.high)
    axes.axvspan(*band, color=COLOURS[2], alpha=0.2, linewidth=0)
    ends = (max(low, obtained.low), min(high, obtained.high))
    axes.plot(ends, [0, 0], color=COLOURS[0], linewidth=2.0)
    axes.scatter([end for end, whole in zip(ends, (obtained.low, obtained.high), strict=True) if end != whole],
                 [0.0] * sum(end != whole for end, whole in zip(ends, (obtained.low, obtained.high), strict=True)),
                 marker="d", s=20, color=COLOURS[0])  # fmt: skip
    axes.scatter([obtained.value], [0.0], s=28, color=COLOURS[0], zorder=3)
    if result.claim.published is not None:
        axes.axvline(result.claim.published, color=GREY, linestyle="--", linewidth=1.0)
    axes.set_xlim(low, high)
    axes.set_ylim(-1, 1)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    told = f"{obtained.unit or 'obtained'}; shaded: expected, {show_expected(expected.low, expected.high)}"
    dashed = "; dashed: published" if result.claim.published is not None else ""
    axes.set_xlabel(literal(told + dashed), fontsize=SMALL)
