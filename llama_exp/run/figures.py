"""What the metrics of a run, or of several, say: figures and a picture. Imports no framework."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_exp.console.picture import COLOURS, clear_axes, literal, new_figure, save_picture
from llama_exp.files.metrics_file import perplexity

Row = Mapping[str, Any]


def figures(rows: Sequence[Row], last_step: int = -1) -> dict[str, Any]:
    """The figures of a run for its summary.

    Args:
        rows: of `metrics.jsonl`.
        last_step: of the last checkpoint, -1 without one: a run that was stopped has one behind its last row.

    Returns:
        `steps` (the last one), `tokens`, `tokens_per_second` (median over training rows), `peak_memory_bytes`,
        `train_loss` (last), and `validation`: `first`, `best`, `best_step`, `last`, `perplexity` (exp of the last).
        What no row tells is absent. A run that finished adds `loss` and `perplexity` of the weights that it leaves.
    """
    found: dict[str, Any] = {}
    train, validation = _split(rows, "train"), _split(rows, "validation")
    if rows or last_step >= 0:
        found["steps"] = max(last_step, *(row["step"] for row in rows), 0)
    for name, reduce in (("tokens", max), ("tokens_per_second", statistics.median), ("peak_memory_bytes", max)):
        values = [row[name] for row in train if row.get(name) is not None]
        if values:
            found[name] = reduce(values)
    if train:
        found["train_loss"] = train[-1]["loss"]
    if validation:
        finite = [row for row in validation if math.isfinite(row["loss"])]
        best = min(finite, key=lambda row: row["loss"]) if finite else validation[-1]
        found["validation"] = {
            "first": validation[0]["loss"],
            "best": best["loss"],
            "best_step": best["step"],
            "last": validation[-1]["loss"],
            "perplexity": perplexity(validation[-1]["loss"]),
        }
    return found


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Mean over up to `window` values around each one.

    The window stays symmetric, so it shrinks towards both ends: unlike an exponential average, the curve does not lag
    behind a falling loss. Values that are not finite do not count; where no other is near, NaN results.
    """
    sums, counts = [0.0], [0]
    for value in values:
        finite = math.isfinite(value)
        sums.append(sums[-1] + (value if finite else 0.0))
        counts.append(counts[-1] + finite)
    averages = []
    for index in range(len(values)):
        reach = min(window // 2, index, len(values) - 1 - index)
        low, high = index - reach, index + reach + 1
        count = counts[high] - counts[low]
        averages.append((sums[high] - sums[low]) / count if count else math.nan)
    return averages


def write_plot(runs: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Writes what `draw_plot` draws.

    Args:
        runs: label -> rows of `metrics.jsonl`.
        path: a PNG file, replaced atomically.

    Raises:
        StorageError: it cannot be written.
    """
    save_picture(draw_plot(runs), path)


def draw_plot(runs: Mapping[str, Sequence[Row]]) -> Any:
    """Loss over steps, training and validation, above the learning rate; one colour per run.

    With one run, the two splits have a colour each and the legend tells the best validation loss.

    Args:
        runs: label -> rows of `metrics.jsonl`.

    Returns:
        A `matplotlib.figure.Figure` that `pyplot` does not know of.
    """
    figure = new_figure(8.0, 5.2)
    losses, rates = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [4, 1]})
    for number, (label, rows) in enumerate(runs.items()):
        colour = COLOURS[number % len(COLOURS)]
        own_colour = COLOURS[1] if len(runs) == 1 else colour
        prefix = "" if len(runs) == 1 else f"{literal(label)}: "
        _draw_train(losses, _split(rows, "train"), colour, prefix)
        _draw_validation(losses, _split(rows, "validation"), own_colour, prefix)
        train = [row for row in _split(rows, "train") if row.get("learning_rate") is not None]
        rates.plot([row["step"] for row in train], [row["learning_rate"] for row in train], color=colour, linewidth=1.2)
    losses.set_ylabel("loss (nats per token)")
    rates.set_ylabel("learning rate", fontsize=9)
    rates.set_xlabel("optimizer step")
    rates.set_ylim(bottom=0.0)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (losses, rates):
        clear_axes(axes)
        axes.margins(x=0.02)
    figure.align_ylabels()
    if losses.get_legend_handles_labels()[0]:
        losses.legend(frameon=False, loc="upper right")
    title = " / ".join(runs) if len(runs) <= 2 else f"{len(runs)} runs"
    figure.suptitle(literal(title), fontsize=10, color="#444444")
    return figure


def _draw_train(axes: Any, rows: Sequence[Row], colour: str, prefix: str) -> None:
    if not rows:
        return
    steps, values = [row["step"] for row in rows], [row["loss"] for row in rows]
    few = len(rows) < 20
    label = f"{prefix}train"
    axes.plot(steps, values, color=colour, alpha=1.0 if few else 0.3, linewidth=1.2 if few else 0.8,
              marker="." if few else None, label=label if few else None)  # fmt: skip
    if not few:
        axes.plot(steps, smoothed(values, max(5, len(rows) // 15)), color=colour, linewidth=1.8,
                  label=f"{label} (smoothed; faint: each row)")  # fmt: skip


def _draw_validation(axes: Any, rows: Sequence[Row], colour: str, prefix: str) -> None:
    finite = [row for row in rows if math.isfinite(row["loss"])]
    if not finite:
        return
    best = min(finite, key=lambda row: row["loss"])
    label = f"{prefix}validation (best {best['loss']:.3f} at step {best['step']})"
    axes.plot([row["step"] for row in finite], [row["loss"] for row in finite], color=colour, linewidth=1.2,
              marker="o", markersize=4, label=label)  # fmt: skip


def _split(rows: Sequence[Row], split: str) -> list[Row]:
    return [row for row in rows if row.get("split") == split and isinstance(row.get("loss"), float | int)]
