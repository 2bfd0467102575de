"""The record of an update in the run's folder, found again by the digests of the weights that it is of."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_exp.files.json_file import read_record
from llama_exp.files.writing import write_json, write_text
from llama_exp.inspection.picture import draw_update
from llama_exp.inspection.update import Update, from_data, to_data

FORMAT = 1
_NAME = "update_rank"
_COLUMNS = ("matrix", "kind", "block", "rows", "columns", "norm", "relative_norm", "rank_90", "stable_rank", "largest")


def name_of(step: int | None) -> str:
    """The name of an update's files without their ending: of what the run exported, or of a checkpoint."""
    return _NAME if step is None else f"{_NAME}-{step:08d}"


def read_update(folder: Path, step: int | None, key: Mapping[str, Any]) -> Update | None:
    """The update that a folder has a record of; None: of none, of other weights, or one that cannot be read.

    Args:
        folder: of the run.
        step: of a checkpoint; None: what the run exported.
        key: what the update is of.
    """
    record = read_record(folder / f"{name_of(step)}.json")
    if record is None or record.get("format") != FORMAT or record.get("key") != dict(key):
        return None
    try:
        return from_data(record)
    except ValueError:
        return None


def write_record(update: Update, step: int | None, key: Mapping[str, Any], folder: Path) -> Path:
    """Writes what `read_update` reads, unless it is there; returns its path. Raises `StorageError`."""
    path = folder / f"{name_of(step)}.json"
    if read_update(folder, step, key) != update:
        write_json(path, {"format": FORMAT, "key": dict(key), **to_data(update)})
    return path


def write_update(update: Update, step: int | None, key: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes the record, a table of the matrices and a picture of their spectra; returns their paths.

    Raises:
        StorageError: one of them cannot be written.
    """
    record = write_record(update, step, key, folder)
    table, picture = record.with_suffix(".csv"), record.with_suffix(".png")
    write_text(table, _table(update))
    draw_update(update, picture)
    return [record, table, picture]


def _table(update: Update) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_rows(update))
    return text.getvalue()


def _rows(update: Update) -> Iterator[tuple[Any, ...]]:
    for matrix in update.matrices:
        largest = matrix.values[0] if matrix.values else 0.0
        yield (
            matrix.path,
            matrix.kind,
            matrix.block,
            *matrix.shape,
            matrix.norm,
            matrix.relative_norm,
            matrix.rank_90,
            matrix.stable_rank,
            largest,
        )
