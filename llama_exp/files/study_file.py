"""The journal of a search, which Optuna writes: mended after a kill, before Optuna opens it."""

from __future__ import annotations

from pathlib import Path

from llama_exp.files.appended_file import AppendedFile
from llama_exp.files.writing import storage_errors

NAME = "study.journal"
_LOCK = f"{NAME}.lock"  # Optuna's own; a killed process leaves it, and the next one would wait half a minute for it


def mend_study(folder: Path) -> Path:
    """The path of the journal in a folder that is locked for this process; half of a last line is cut off.

    Optuna would append the next line to it, and read neither from then on.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = folder / NAME
    AppendedFile(path).cut_half_line()
    with storage_errors(path):
        (folder / _LOCK).unlink(missing_ok=True)
    return path
