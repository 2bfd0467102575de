"""The records of runs on the disk: what began, and which run has not finished. Imports no framework."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from llama_exp.files.json_file import read_record
from llama_exp.files.latest import is_latest

RECORD_FILE = "run.json"
_STEP_FOLDER = re.compile(r"^step-(\d+)$")
_log = logging.getLogger(__name__)


def find_unfinished(root: Path, config_hash: str) -> Path | None:
    """The run under `root` with this hash that has not finished and got farthest; None if there is none.

    Looks at runs directly in `root` and in the sweep folders there. Farthest: the highest checkpointed step, then the
    latest recorded start; file times do not count, because copies and clocks change them.
    """
    candidates = []
    for record_file in [*root.glob(f"*/{RECORD_FILE}"), *root.glob(f"*/*/{RECORD_FILE}")]:
        folder = record_file.parent
        if is_latest(folder):  # the same run once more, under a name that is another run's tomorrow
            continue
        record = read_run_record(folder)
        if record is None:
            _log.warning("%s is no whole record; its run is left alone", record_file)
        elif record.get("config_hash") == config_hash:
            summary = read_record(folder / "summary.json") or {}
            if summary.get("status") != "finished":
                candidates.append((_last_step(folder), record["starts"][-1]["time"], str(folder)))
    return Path(max(candidates)[2]) if candidates else None


def read_run_record(folder: Path) -> dict[str, Any] | None:
    """What `run.json` says of a run that was begun at least once; None if it is none or damaged."""
    record = read_record(folder / RECORD_FILE) or {}
    starts = record.get("starts")
    is_whole = isinstance(starts, list) and all(isinstance(start, dict) for start in starts)
    return record if is_whole and starts and isinstance(starts[-1].get("time"), str) else None


def _last_step(folder: Path) -> int:
    names = [entry.name for entry in (folder / "checkpoints").glob("step-*")]
    return max((int(match.group(1)) for name in names if (match := _STEP_FOLDER.match(name))), default=-1)
