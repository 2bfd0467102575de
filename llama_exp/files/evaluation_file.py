"""What evaluations leave: `evaluation.jsonl`, one row each, and `evaluation/`, a file with each item's results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.appended_file import AppendedFile
from llama_exp.files.json_file import read_lines, read_record
from llama_exp.files.json_text import as_number, dump_json
from llama_exp.files.writing import append_line, make_folder, write_json, write_text

ROWS, FOLDER = "evaluation.jsonl", "evaluation"
# Keys of a row that are no figures.
NO_FIGURES = ("step", "name", "kind", "items", "tokens", "seconds", "fingerprint", "file")


class EvaluationFile:
    """Observer that appends the row of each evaluation to `evaluation.jsonl` at once."""

    def __init__(self, path: Path):
        self._file = AppendedFile(path)

    def on_evaluation(self, row: Mapping[str, Any]) -> None:
        """Appends the row; it survives a kill from here on. Raises `StorageError`."""
        self._file.append(dump_json(row) + "\n")

    def on_finish(self, status: str) -> None:
        """Closes the file."""
        self._file.close()

    def state(self) -> dict[str, Any]:
        """The file's length in bytes, for a checkpoint."""
        return self._file.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Cuts the file back to its length at the checkpoint, and half of a row off its end."""
        self._file.restore(state)
        self._file.cut_half_line()


def append_row(folder: Path, row: Mapping[str, Any]) -> None:
    """Adds a row to the `evaluation.jsonl` of a folder that no run owns now. Raises `StorageError`."""
    append_line(folder / ROWS, row)


def write_items(
    folder: Path, name: str, step: int | None, results: Iterable[Mapping[str, Any]], keeps: bool = False
) -> str:
    """Writes one line for each item's results, with its number; returns the file's place below `folder`.

    Args:
        folder: a run's, or a command's output.
        name: of the evaluation.
        step: finished steps; None: of no run.
        results: JSON.
        keeps: whether a file that is there keeps its name, and this one gets a number.

    Raises:
        StorageError: it cannot be written.
    """
    stem = f"{FOLDER}/{name}" if step is None else f"{FOLDER}/{name}-{step:08d}"
    place, number = f"{stem}.jsonl", 1
    while keeps and (folder / place).exists():
        number += 1
        place = f"{stem}.{number}.jsonl"
    make_folder(folder / FOLDER)
    lines = (dump_json({"item": number, **result}) + "\n" for number, result in enumerate(results))
    write_text(folder / place, "".join(lines))
    return place


def add_to_summary(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Takes the figures of rows into the `evaluation` of a finished run's summary.json. Raises `StorageError`."""
    summary = read_record(folder / "summary.json")
    if summary is not None:
        known = summary.get("evaluation")
        figures = {row["name"]: figures_of(row) for row in rows}
        summary["evaluation"] = (known if isinstance(known, dict) else {}) | figures
        write_json(folder / "summary.json", summary)


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """The rows of an `evaluation.jsonl` in file order, with real NaN and infinities; [] where there is no file.

    Raises:
        InputError: for a whole line that is no such row, with its number.
    """
    rows = []
    for number, row in enumerate(read_lines(path) if path.exists() else [], start=1):
        if not isinstance(row.get("name"), str) or type(row.get("step")) not in (int, type(None)):
            found = f"line {number}: name {row.get('name')!r}, step {row.get('step')!r}"[:160]
            raise InputError.about(path, "a line is no row of an evaluation", found, "restore the line, or delete it")
        texts = {key for key, value in row.items() if key not in NO_FIGURES and isinstance(value, str)}
        rows.append({key: as_number(value) if key in texts else value for key, value in row.items()})
    return rows


def figures_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a row, for `evaluation.<name>` of a summary."""
    return {key: value for key, value in row.items() if key not in NO_FIGURES and isinstance(value, int | float)}
