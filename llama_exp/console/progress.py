"""What a person sees while a model trains: a live line on a terminal, plain lines elsewhere, and tables around them.

    120/300 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ loss 4.1234 · val 4.2010 · 12.3k tokens/s · ETA 1:23 · 512 MiB

Everything else goes through the logger, above the live line. Without a terminal each row of metrics is one line
without control characters. A terminal that went away never stops the training.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.console.data_line import data_line
from llama_exp.console.live import LiveLine, format_seconds
from llama_exp.console.logs import SHOWN_BY_BAR, log_table
from llama_exp.files.evaluation_file import figures_of
from llama_exp.files.metrics_file import perplexity
from llama_exp.files.redact import printable
from llama_exp.files.shown_path import show_path

_log = logging.getLogger(__name__)
_BAR_WIDTH = 30
_SAMPLE_CHARACTERS = 300


class Progress:
    """Observer that shows how far the training is, and before it what is being made ready.

    Args:
        max_steps: optimizer steps of the whole run.
        shown: whether this process may write to the terminal.
    """

    def __init__(self, max_steps: int, shown: bool = True):
        self._max_steps, self._shown = max_steps, shown
        self._step = 0
        self._row: dict[str, Any] = {}
        self._loss: float | None = None
        self._validation_loss: float | None = None
        self._mark: tuple[float, int] | None = None  # time and step that the speed is measured from
        self._seconds_per_step: float | None = None
        self._live = LiveLine(self.line)
        self._left = False  # whether the line stands on the screen with its last figures

    def on_start(self, facts: dict[str, Any]) -> None:
        """Opens the live line, if standard error is a terminal."""
        self.on_phase(None)

    def on_phase(self, phase: str | None) -> None:
        """Opens the live line and says there what happens beside the steps; None: nothing else."""
        if self._shown:
            self._live.open()
        self._live.show_phase(phase)

    def on_step(self, step: int, loss: float, tokens: int) -> None:
        """Moves the bar."""
        self._live.show_phase(None)
        self._step, self._loss = max(self._step, step), loss
        self._measure(step)

    def on_metrics(self, row: dict[str, Any]) -> None:
        """Takes the row into the live line and logs it as a line."""
        self._step = max(self._step, row["step"])
        if row["split"] == "validation":
            self._validation_loss = row["loss"]
        else:
            self._row, self._loss = dict(row), row["loss"]
            self._measure(row["step"])
        _log.info("%s", self._metrics_line(row), extra=SHOWN_BY_BAR)

    def on_evaluation(self, row: dict[str, Any]) -> None:
        """Logs the figures of an evaluation."""
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures_of(row).items())
        _log.info("step %s/%d  %s: %s", row["step"], self._max_steps, row["name"], figures)

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Logs the beginning of what the model wrote, on one line."""
        whole = prompt + text.removeprefix(prompt)
        shown = " ".join(printable(whole).split())
        _log.info("sample at step %d: %s", step, shorten(shown, _SAMPLE_CHARACTERS))

    def on_finish(self, status: str) -> None:
        """Closes the live line."""
        self.close()

    def close(self) -> None:
        """Leaves the live line on the screen with its last figures; one that was opened again since is taken away."""
        self._live.show_phase(None)
        self._live.close(leaves=not self._left)
        self._left = True

    def state(self) -> dict[str, Any]:
        """The last step and validation loss, for a checkpoint."""
        return {"step": self._step, "validation_loss": _json_number(self._validation_loss)}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self._step = state["step"]
        loss = state["validation_loss"]
        self._validation_loss = None if loss is None else float(loss)

    def line(self, width: int, ascii_only: bool = False) -> str:
        """The live line, at most `width` columns; what matters less is left out first."""
        count = f"{self._step}/{self._max_steps}"
        parts = self._parts()
        separator = " | " if ascii_only else " · "
        while True:
            text = separator.join(parts)
            room = width - len(count) - len(text) - 2
            if room >= 10 or len(parts) <= 1:
                break
            parts.pop()
        bar = bar_text(self._step / self._max_steps, max(0, min(room, _BAR_WIDTH)), ascii_only)
        return " ".join(part for part in (count, bar, text) if part)[: max(width, 0)]

    def _parts(self) -> list[str]:
        """What the live line says, most important first."""
        parts = [] if self._live.phase is None else [self._live.phase]
        if self._loss is not None:
            parts.append(f"loss {self._loss:.4f}")
        if self._validation_loss is not None:
            parts.append(f"val {self._validation_loss:.4f}")
        return parts + self._speed()

    def _speed(self) -> list[str]:
        """Tokens per second, time left, memory, as far as they are known."""
        row, parts = self._row, []
        if row.get("tokens_per_second"):
            parts.append(f"{format_number(row['tokens_per_second'])} tokens/s")
        if (left := self._seconds_left()) is not None:
            parts.append(f"ETA {format_seconds(left)}")
        if row.get("peak_memory_bytes"):
            parts.append(format_bytes(row["peak_memory_bytes"]))
        return parts

    def _metrics_line(self, row: Mapping[str, Any]) -> str:
        digits = len(str(self._max_steps))
        parts = [f"step {row['step']:>{digits}}/{self._max_steps}"]
        if row["split"] == "validation":
            parts += [f"validation loss {row['loss']:.4f}", f"perplexity {perplexity(row['loss']):.2f}"]
            return "  ".join(parts)
        parts.append(f"loss {row['loss']:.4f}")
        for name, shape in (("learning_rate", "lr {:.2e}"), ("grad_norm", "grad {:.3f}")):
            if row.get(name) is not None:
                parts.append(shape.format(row[name]))
        return "  ".join(parts + self._speed())

    def _measure(self, step: int) -> None:
        """Time per step since the first that was told: compilation and validation before it do not count."""
        now = time.monotonic()
        if self._mark is None or step < self._mark[1]:
            self._mark = (now, step)
        elif step > self._mark[1]:
            self._seconds_per_step = (now - self._mark[0]) / (step - self._mark[1])

    def _seconds_left(self) -> float | None:
        if self._seconds_per_step is None:
            return None
        return max(0, self._max_steps - self._step) * self._seconds_per_step


def end_table(summary: Mapping[str, Any], folder: Path, commands: Mapping[str, str]) -> None:
    """Logs what was done, where it lies and what can be done next.

    Args:
        summary: what `RunFolder.finish` returned.
        folder: the run folder.
        commands: label -> shell command, for instance `{"resume": ..., "sync W&B": ...}`.
    """
    rows = [("status", f"{summary['status']} (exit code {summary['exit_code']})")]
    if "steps" in summary:
        tokens = f", {format_number(summary['tokens'])} tokens" if "tokens" in summary else ""
        rows.append(("steps", f"{summary['steps']}{tokens}"))
        rate = summary.get("tokens_per_second")
        speed = "" if rate is None else f"; the steps alone: {format_number(rate)} tokens/s"
        rows.append(("time", f"{format_seconds(summary['seconds'])} in all{speed}"))
    validation = summary.get("validation")
    if validation:
        first, best, last = (float(validation[key]) for key in ("first", "best", "last"))
        change = f" ({100 * (last / first - 1):+.0f} %)" if first else ""
        rows.append(("validation loss", f"{first:.4f} -> {last:.4f}{change}"))
        rows.append(("best", f"{best:.4f} at step {validation['best_step']}"))
        rows.append(("perplexity", f"{float(validation['perplexity']):.2f}"))
    if "budget" in summary:
        rows.append(("budget", say_spent(summary["budget"])))
    rows += _decisions(summary)
    if "data" in summary:
        rows.append(("data", data_line(summary["data"])))
    rows.append(("folder", show_path(folder)))
    log_table("run summary", [*rows, *commands.items()])


def say_spent(budget: Mapping[str, Any]) -> str:
    """The entry `budget` of a summary in words."""
    amount, used = float(budget["amount"]), float(budget["used"])
    return f"{used:.4g} of {amount:.4g} {budget['unit']} ({used / amount:.2%}) in {budget['steps']} steps"


def _decisions(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What figures and callbacks decided, where they did."""
    rows = []
    if "stopped_early" in summary:
        rows.append(("stopped early", summary["stopped_early"]))
    if summary.get("exported_step", summary.get("steps")) != summary.get("steps"):
        best = summary["best"]
        rows.append(("exported", f"step {best['step']}, the best: {best['figure']} {float(best['value']):.4f}"))
    for name, figures in (summary.get("evaluation") or {}).items():
        rows.append((name, ", ".join(f"{figure} {float(value):.4f}" for figure, value in figures.items())))
    return rows


def bar_text(share: float, width: int, ascii_only: bool = False) -> str:
    """A bar of `width` columns of which `share` (0 to 1) is filled."""
    full, empty = ("#", "-") if ascii_only else ("━", "─")
    filled = round(min(1.0, max(0.0, share)) * width)
    return full * filled + empty * (width - filled)


def format_number(value: float) -> str:
    """850, 12.3k, 4.5M, 1.2G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def format_bytes(value: float) -> str:
    """850 B, 512 MiB, 1.2 GiB."""
    for unit, size, digits in (("GiB", 2**30, 1), ("MiB", 2**20, 0), ("KiB", 2**10, 0)):
        if value >= size:
            return f"{value / size:.{digits}f} {unit}"
    return f"{value:.0f} B"


def shorten(text: str, length: int) -> str:
    """The text, cut to `length` characters with `...` at its end if it is longer."""
    return text if len(text) <= length else text[: length - 3] + "..."


def _json_number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
