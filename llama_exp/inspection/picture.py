"""The spectra of an update: one panel for each kind of matrix, one line for each matrix."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from llama_exp.console.picture import COLOURS, GREY, clear_axes, literal, new_figure, save_picture
from llama_exp.inspection.update import MatrixUpdate, Update, mean

_COLUMNS = 3
_SMALL = 8
_FLOOR = 1e-7  # of the largest value: below it a difference of float32 weights is rounding


def draw_update(update: Update, path: Path) -> None:
    """Singular values over their places, each spectrum divided by its largest value; raises `StorageError`."""
    kinds = update.kinds
    rows = max(1, math.ceil(len(kinds) / _COLUMNS))
    figure = new_figure(9.0, 2.4 * rows + 0.6)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False, sharey=True)
    for axes in panels.flat[len(kinds) :]:
        axes.set_visible(False)
    for number, (axes, kind) in enumerate(zip(panels.flat, kinds, strict=False)):
        _draw_kind(axes, update.of_kind(kind), number % _COLUMNS == 0)
    figure.suptitle(literal(_title(update)), fontsize=10, color="#444444")
    save_picture(figure, path)


def _draw_kind(axes: Any, matrices: list[MatrixUpdate], is_first: bool) -> None:
    clear_axes(axes)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(_FLOOR, 2.0)
    for matrix in matrices:
        if matrix.values and matrix.values[0] > 0.0:
            values = [value / matrix.values[0] for value in matrix.values]
            axes.plot(matrix.places, values, color=COLOURS[0], alpha=max(0.15, 1 / len(matrices)), linewidth=1.2,
                      marker="." if len(values) < 3 else None)  # fmt: skip
    rank, full = mean(matrix.rank_90 for matrix in matrices), matrices[0].full_rank
    axes.axvline(max(rank, 1.0), color=COLOURS[1], linewidth=1.0, linestyle="--")
    axes.axvline(full, color=GREY, linewidth=0.8)
    axes.set_title(literal(f"{matrices[0].kind}: 90 % in {rank:.4g} of {full}"), fontsize=_SMALL)
    axes.tick_params(labelsize=_SMALL - 1)
    axes.set_xlabel("place", fontsize=_SMALL)
    if is_first:
        axes.set_ylabel("value / largest", fontsize=_SMALL)


def _title(update: Update) -> str:
    step = "" if update.step is None else f" after step {update.step}"
    return (
        f"Singular values of what {update.method} training changed{step}; dashed: mean rank for 90 %, grey: full rank"
    )
