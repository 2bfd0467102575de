"""The records of runs on the disk: what began, and which run has not finished. Imports no framework."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.json_file import MAX_RECORD_BYTES, read_json, read_record
from llama_exp.files.latest import is_latest

RECORD_FILE = "run.json"
# Below the folder of all runs of a name: a run, a job of a sweep with a folder of its own, of one in conf's place.
_PLACES = ("*", "*/*", "sweeps/*/*")
_STEP_FOLDER = re.compile(r"step-(\d+)")
_log = logging.getLogger(__name__)


def find_unfinished(root: Path, config_hash: str) -> Path | None:
    """The run under `root` with this hash that has not finished and got farthest; None if there is none.

    Looks at runs directly in `root` and at the jobs of sweeps there. Farthest: the highest checkpointed step, then the
    latest recorded start; file times do not count, because copies and clocks change them.
    """

    def goes_on(folder: Path, record: dict[str, Any]) -> bool:
        return record.get("config_hash") == config_hash and _summary(folder).get("status") != "finished"

    return _find_farthest(root, goes_on)


def find_shorter(
    root: Path, config_hash: str, continuation_hash: str, max_steps: int, may_go_on: Callable[[Path], bool]
) -> Path | None:
    """The run under `root` of the same kind that `max_steps` makes longer and that got farthest; None likewise.

    Args:
        root: as above.
        config_hash: of the present config; a run of it that finished earlier was ended early, and would be again.
        continuation_hash: of the present config.
        max_steps: as many steps as wanted; a run that got farther is left alone, and so is one that finished there.
        may_go_on: whether nothing else forbids the run in a folder to go on; asked last.
    """

    def goes_on(folder: Path, record: dict[str, Any]) -> bool:
        if record.get("continuation_hash") != continuation_hash:
            return False
        summary, reached = _summary(folder), last_step(folder)
        is_same = record.get("config_hash") == config_hash
        is_done = summary.get("status") == "finished" and (reached >= max_steps or is_same)
        return not is_done and reached <= max_steps and may_go_on(folder)

    return _find_farthest(root, goes_on)


def read_run_record(folder: Path) -> dict[str, Any] | None:
    """What `run.json` says of a run that was begun at least once; None if it is none or damaged."""
    record = read_record(folder / RECORD_FILE) or {}
    return record if _is_whole(record) else None


def load_run_record(folder: Path) -> dict[str, Any]:
    """What `run.json` says, whatever it is; raises `InputError` if that cannot be read."""
    try:
        return read_json(folder / RECORD_FILE, MAX_RECORD_BYTES)
    except InputError as error:
        (problem,) = error.problems
        raise _damaged(folder, f"{problem.what}: {problem.found}") from error


def require_run_record(folder: Path) -> None:
    """Raises `InputError` unless `run.json` is the whole record of a run."""
    if not _is_whole(load_run_record(folder)):
        raise _damaged(folder, "no list `starts` with the time of each start")


def last_step(folder: Path) -> int:
    """The highest step that a run folder has a checkpoint of, valid or not; -1 without any."""
    checkpoints = folder / "checkpoints"
    names = [entry.name for entry in checkpoints.iterdir()] if checkpoints.is_dir() else []
    return max((int(match[1]) for name in names if (match := _STEP_FOLDER.fullmatch(name))), default=-1)


def _find_farthest(root: Path, goes_on: Callable[[Path, dict[str, Any]], bool]) -> Path | None:
    runs = [(folder, record) for folder, record in _runs_in(root) if goes_on(folder, record)]
    farthest = [(last_step(folder), record["starts"][-1]["time"], str(folder)) for folder, record in runs]
    return Path(max(farthest)[2]) if farthest else None


def _runs_in(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for folder in sorted({file.parent for place in _PLACES for file in root.glob(f"{place}/{RECORD_FILE}")}):
        if is_latest(folder):  # the same run once more, under a name that is another run's tomorrow
            continue
        record = read_run_record(folder)
        if record is None:
            _log.warning("%s is no whole record; its run is left alone", folder / RECORD_FILE)
        else:
            yield folder, record


def _damaged(folder: Path, found: str) -> InputError:
    action = "put back a whole copy of the file, or begin a new run with resume=none and without this folder"
    return InputError.about(folder / RECORD_FILE, "the record of the run is damaged", found, action)


def _summary(folder: Path) -> dict[str, Any]:
    return read_record(folder / "summary.json") or {}


def _is_whole(record: dict[str, Any]) -> bool:
    starts = record.get("starts")
    if not (isinstance(starts, list) and starts and all(isinstance(start, dict) for start in starts)):
        return False
    return isinstance(starts[-1].get("time"), str)
