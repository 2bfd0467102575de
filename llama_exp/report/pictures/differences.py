"""Each config against its baseline: the differences of all pairs, their mean and its interval."""

from __future__ import annotations

from pathlib import Path

from llama_exp.console.picture import COLOURS, GREY, clear_axes, literal, new_figure, save_picture
from llama_exp.limits.figures import Direction
from llama_exp.report.contents import Report
from llama_exp.report.pictures.looks import SMALL, WIDTH, label_of

_MOST_ROWS = 40
_ABOVE = 0.28  # of a line: where the pairs stand over their mean


def draw_differences(report: Report, path: Path) -> None:
    """One line for each comparison, best config on top; raises `StorageError`."""
    found = report.comparisons
    everything = [row for row in found.rows if row.difference is not None] if found is not None else []
    rows = everything[:_MOST_ROWS]
    figure = new_figure(WIDTH, 1.1 + 0.32 * len(rows))
    axes = figure.subplots()
    clear_axes(axes)
    axes.axvline(0.0, color=GREY, linewidth=1.0)
    for height, row in zip(range(len(rows), 0, -1), rows, strict=True):
        mean = row.difference.mean if row.difference is not None else 0.0
        above = [height + _ABOVE] * len(row.differences)
        axes.scatter(row.differences, above, s=9, color=GREY, linewidths=0, zorder=2)
        if row.difference is not None and row.difference.low is not None:
            axes.plot([row.difference.low, row.difference.high], [height] * 2, color=COLOURS[0], linewidth=1.6)
        axes.plot([mean], [height], marker="D", markersize=5, color=COLOURS[0], zorder=3)
    texts = [f"{row.group}: {report.group(row.group).label}" for row in rows]
    axes.set_yticks(range(len(rows), 0, -1), [label_of(text) for text in texts], fontsize=SMALL)
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.tick_params(axis="x", labelsize=SMALL)
    side = "left" if report.figure.direction is Direction.minimize else "right"
    axes.set_xlabel(literal(f"difference in {report.figure.label}"), fontsize=SMALL + 1)
    told = (
        f"{side} of 0: better than the baseline; diamond: mean, {100 * report.confidence:.4g} % t interval; dots: pairs"
    )
    told += f"; the best {_MOST_ROWS} of {len(everything)}" if len(everything) > _MOST_ROWS else ""
    axes.set_title(told, fontsize=SMALL, color="#444444", loc="left")
    save_picture(figure, path)
