"""The record of a run: `metrics.jsonl`, the truth about its numbers, and `samples.md`, what the model wrote.

A row of `metrics.jsonl` is one strict JSON object a line: `step`, `split` (`train`, `validation`), `loss` and the
other figures of that moment. A number that JSON cannot express stands as the string "NaN", "Infinity" or "-Infinity".
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.appended_file import AppendedFile
from llama_exp.files.json_file import read_lines
from llama_exp.files.json_text import as_number, dump_json
from llama_exp.files.redact import printable

_FIGURES = (
    *("loss", "perplexity", "learning_rate", "grad_norm", "tokens", "seconds", "tokens_per_second"),
    *("peak_memory_bytes", "mfu"),
)


class MetricsFile:
    """Observer that appends each row of metrics to `metrics.jsonl` at once.

    Attributes:
        reached: `steps` and `tokens` of the last finished step, which may be later than the last row; {} before.
    """

    def __init__(self, path: Path):
        self._file = AppendedFile(path)
        self.reached: dict[str, int] = {}

    def on_start(self, facts: dict[str, Any]) -> None:
        """Where the run begins: its other facts stand in `run.json`."""
        if "step" in facts:
            self.on_step(facts["step"], math.nan, facts["tokens"])

    def on_step(self, step: int, loss: float, tokens: int) -> None:
        """Notes how far the run is."""
        self.reached = {"steps": step, "tokens": tokens}

    def on_metrics(self, row: dict[str, Any]) -> None:
        """Appends the row; it survives a kill from here on. Raises `StorageError`."""
        self._file.append(dump_json(row) + "\n")

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Nothing: samples stand in `samples.md`."""

    def on_finish(self, status: str) -> None:
        """Closes the file."""
        self._file.close()

    def state(self) -> dict[str, Any]:
        """The file's length in bytes, for a checkpoint."""
        return self._file.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Cuts the file back to its length at the checkpoint: rows of steps that will be redone go, nothing else.

        But for half of a row, which a power cut can leave at the end of a shorter file: the next row would join it.
        """
        self._file.restore(state)
        self._file.cut_half_line()


class Samples:
    """Observer that appends what the model wrote to `samples.md`, under one heading per step."""

    def __init__(self, path: Path):
        self._file = AppendedFile(path)
        self._step: int | None = None

    def on_start(self, facts: dict[str, Any]) -> None:
        """Nothing: there is no text yet."""

    def on_metrics(self, row: dict[str, Any]) -> None:
        """Nothing: numbers stand in `metrics.jsonl`."""

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Appends prompt and continuation; `text` may or may not repeat the prompt. Raises `StorageError`."""
        title = "# Samples\n\n" if self._step is None else ""
        heading = "" if step == self._step else f"{title}## Step {step}\n\n"
        prompt_block, continuation_block = _fenced(prompt), _fenced(text.removeprefix(prompt))
        self._file.append(f"{heading}Prompt:\n\n{prompt_block}\nContinuation:\n\n{continuation_block}\n")
        self._step = step

    def on_finish(self, status: str) -> None:
        """Closes the file."""
        self._file.close()

    def state(self) -> dict[str, Any]:
        """The file's length in bytes and the step of its last heading, for a checkpoint."""
        return {**self._file.state(), "step": self._step}

    def restore(self, state: dict[str, Any]) -> None:
        """Cuts the file back to its length at the checkpoint."""
        self._file.restore(state)
        self._step = state["step"]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl` in file order, with real NaN and infinities.

    A last line without its newline was cut short by a kill and is no row. A file that does not exist has none.

    Raises:
        InputError: for a whole line that is no such row, with its number.
    """
    rows = []
    for number, row in enumerate(read_lines(path) if path.exists() else [], start=1):
        rows.append({key: as_number(value) for key, value in row.items()})
        if (wrong := _find_wrong(rows[-1])) is not None:
            found = f"line {number}: {wrong} is {json.dumps(row.get(wrong))[:60]}"
            raise InputError.about(path, "a line is no row of metrics", found, "restore the line, or delete it")
    return rows


def read_samples(path: Path) -> list[tuple[int, str, str]]:
    """Step, prompt and continuation of every sample of a `samples.md`, in file order; a cut one is none.

    A file that does not exist has none.
    """
    found: list[tuple[int, str, str]] = []
    step, label, fence = 0, "", ""
    texts: dict[str, list[str]] = {"Prompt:": [], "Continuation:": []}
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        if fence and line != fence:
            texts[label].append(line)
        elif fence:
            fence = ""
            if label == "Continuation:":
                found.append((step, "\n".join(texts["Prompt:"]), "\n".join(texts[label])))
        elif match := re.fullmatch(r"## Step (\d+)", line):
            step = int(match[1])
        elif line in texts:
            label = line
        elif match := re.fullmatch(r"(`{3,})text", line):
            fence, texts[label] = match[1], []
    return found


def _find_wrong(row: dict[str, Any]) -> str | None:
    """The first key of a row that is missing or of another kind; other keys may hold anything."""
    step = row.get("step")
    if type(step) is not int or step < 0:
        return "step"
    if not isinstance(row.get("split", ""), str):
        return "split"
    numbers = {key: row.get(key) for key in _FIGURES}
    of_other_kind = [key for key, value in numbers.items() if value is not None and type(value) not in (int, float)]
    return "loss" if numbers["loss"] is None else next(iter(of_other_kind), None)


def perplexity(loss: float) -> float:
    """exp(loss), the loss in nats per token; infinite where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _fenced(text: str) -> str:
    """A Markdown code block; its fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{printable(text)}\n{fence}\n"
