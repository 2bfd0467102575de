"""Run folders in which nothing was trained."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from llama_exp.config.run_home import home_of
from llama_exp.files.latest import LATEST, is_latest, point_latest_to
from llama_exp.files.metrics_file import read_metrics
from llama_exp.run.unfinished import RECORD_FILE


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing, or is not there."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def holds_steps(folder: Path) -> bool:
    """Whether a run has trained there: a row of metrics after step 0, or a checkpoint."""
    if any((folder / "checkpoints").glob("step-*")):
        return True
    return any(row["step"] > 0 for row in read_metrics(folder / "metrics.jsonl"))


def remove(folder: Path) -> None:
    """Deletes a run folder, and what it leaves empty of `outputs`; `latest` becomes the newest of the other runs."""
    shutil.rmtree(folder, ignore_errors=True)
    link = folder.parent / LATEST
    if is_latest(link) and not link.exists():
        link.unlink()
        others = sorted(record.parent for record in folder.parent.glob(f"*/{RECORD_FILE}"))
        if others:
            point_latest_to(others[-1])
    outputs = home_of("").absolute()
    for parent in folder.absolute().parents:
        if outputs in (parent, *parent.parents):
            with contextlib.suppress(OSError):  # not empty
                parent.rmdir()
