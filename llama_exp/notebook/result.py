"""A run in a notebook: its figures, its picture, its model."""

from __future__ import annotations

import base64
import functools
import html
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from llama_exp import results
from llama_exp.architecture import AS_STORED
from llama_exp.commands import models
from llama_exp.config.check.nearest import suggest
from llama_exp.console.live import format_seconds
from llama_exp.console.progress import format_number
from llama_exp.errors import InputError
from llama_exp.files.shown_path import show_path
from llama_exp.notebook.frames import to_frame
from llama_exp.results import RunResult, find_figure
from llama_exp.run.figures import draw_plot

_HEADER_BYTES = 8
_PNG = b"\x89PNG\r\n\x1a\n"


class Result(RunResult):
    """What a run has left, read when it is asked for; `RunResult` has folder, config, summary, rows, status."""

    @property
    def metrics(self) -> Any:
        """`metrics.jsonl` as a pandas frame: a line for each row, `split` train or validation.

        Raises:
            ImportError: pandas is not installed; `rows` has the same.
            InputError: a line of the file is damaged.
        """
        return to_frame(self.rows, "result.rows")

    def plot(self) -> Any:
        """Loss and learning rate over the steps, a `matplotlib.figure.Figure`.

        Raises:
            InputError: a line of `metrics.jsonl` is damaged.
        """
        figure = draw_plot({self.folder.name: self.rows})
        # Without it a notebook shows a figure only after somebody has imported pyplot.
        figure._repr_png_ = functools.partial(_to_png, figure)
        return figure

    @functools.cached_property
    def model(self) -> Any:
        """The trained `LlamaCausalLM`, adapter included, with its tokenizer: `result.model.generate("The")`.

        It is built from the folder, on the backend that this process runs, else on the run's own.

        Raises:
            InputError: the run has left no model yet, or it is damaged.
        """
        running = sys.modules["keras"].config.backend() if "keras" in sys.modules else None
        options = SimpleNamespace(
            source=str(self.folder),
            adapter=None,
            offline=bool(self.values.get("preset.offline")),
            backend=running or str(self.values.get("runtime.backend")),
            precision=None,
            quantization=AS_STORED,
        )
        return models.load(options)[0]

    def figure(self, name: str) -> float:
        """A figure of the summary by its dotted path: `validation.loss`, `evaluation.docs.accuracy`.

        Raises:
            InputError: the run has none of this name; the message names those it has.
        """
        value = find_figure(self, name)
        if value is None:
            known = sorted(results.list_figure_paths(self))
            action = suggest(name, known, "figures") if known else "train the run to its end first"
            raise InputError.about(self.folder / "summary.json", "has no such figure", name, action)
        return value

    def __repr__(self) -> str:
        facts = "".join(f", {label} {text}" for label, text in self._facts() if label != "folder")
        return f"Result({show_path(self.folder)}{facts})"

    def _repr_html_(self) -> str:
        facts = [*self._facts(), ("folder", show_path(self.folder))]
        lines = "".join(
            f'<tr><th style="text-align:left">{html.escape(label)}</th><td style="text-align:left">'
            f"{html.escape(text)}</td></tr>"
            for label, text in facts
        )
        return f"<div><table>{lines}</table>{_picture(self.folder / 'loss.png')}</div>"

    def _facts(self) -> Iterator[tuple[str, str]]:
        """What the end table of a run says, in short."""
        yield "status", self.status
        if "reason" in self.summary and self.summary["reason"]:
            yield "reason", str(self.summary["reason"])
        for label, name, shape in _SHOWN:
            value = find_figure(self, name)
            if value is not None:
                yield label, shape(value)


def load_run(folder: str | Path) -> Result:
    """The run in a folder, as `train` returned it.

    Args:
        folder: a run's, or `outputs/<name>/latest`.

    Raises:
        InputError: the folder holds no run, or its record is damaged.
    """
    return as_result(results.load_run(folder))


def as_result(run: RunResult) -> Result:
    """A run that was read, with what a notebook needs besides."""
    return Result(run.folder, run.config, run.record, run.summary, run.place)


# Label, figure and form of what is shown, in this order.
_SHOWN: tuple[tuple[str, str, Any], ...] = (
    ("steps", "steps", lambda value: f"{value:.0f}"),
    ("tokens", "tokens", format_number),
    ("time", "seconds", format_seconds),
    ("first validation loss", "validation.first", "{:.4f}".format),
    ("validation loss", "validation.loss", "{:.4f}".format),
    ("perplexity", "validation.perplexity", "{:.2f}".format),
)


def _to_png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _picture(file: Path) -> str:
    """The run's picture inside of the page, so that the notebook shows it anywhere; empty where there is none."""
    try:
        content = file.read_bytes()
    except OSError:
        return ""
    if content[:_HEADER_BYTES] != _PNG:
        return ""
    shown = base64.b64encode(content).decode("ascii")
    return f'<img alt="loss over steps" style="max-width:640px;width:100%" src="data:image/png;base64,{shown}">'
