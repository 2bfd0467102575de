"""A new run's beginning as a copy of what another run had at a checkpoint: from there on it is a run that goes on.

    run.json         `branch`: where it comes from, and what that had cost; data, tokenizer, preset as they were there
    metrics.jsonl    the other run's rows up to the checkpoint, as far as this run would have written them too
    samples.md, evaluation.jsonl, evaluation/    likewise
    checkpoints/     the checkpoint, and an earlier one that it needs; last, so that half a copy is none

The other run may go afterwards. Loggers begin anew, and get the whole record.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.config.schema import Config, TrainerConfig
from llama_exp.errors import InputError
from llama_exp.files.evaluation_file import FOLDER, ROWS
from llama_exp.files.json_file import read_record
from llama_exp.files.shown_path import show_path
from llama_exp.files.writing import make_folder, storage_errors, write_text
from llama_exp.run.folder import RunFolder
from llama_exp.run.resume import list_checkpoints
from llama_exp.run.trunk import Trunk
from llama_exp.trainer.copying import copy_checkpoint
from llama_exp.trainer.manifest import MANIFEST

# Facts of the other run that this one is compared with before it goes on; see `recorded`.
KEPT_FACTS = ("dataset", "tokenizer", "preset", "quantization", "lora")
OWN_FILES = {"metrics": "metrics.jsonl", "samples": "samples.md", "evaluations": ROWS}
_log = logging.getLogger(__name__)


def record_origin(trunk: Trunk, run_folder: RunFolder) -> None:
    """Adds to run.json where the run comes from, and what it read there."""
    progress = trunk.manifest["state"].get("progress") or {}
    origin = {
        "folder": show_path(trunk.run),
        "checkpoint": trunk.checkpoint.name,
        "step": trunk.step,
        "digest": (read_record(trunk.checkpoint / MANIFEST) or {}).get("sha256"),
        "config_hash": trunk.record.get("config_hash"),
        "tokens": progress.get("tokens"),
        "seconds": progress.get("seconds"),
    }
    run_folder.record(branch=origin, **{key: trunk.record[key] for key in KEPT_FACTS if key in trunk.record})


def take_state(trunk: Trunk, run_folder: RunFolder, config: Config) -> None:
    """Copies the other run's record up to the checkpoint, then the checkpoint; the same copy again changes nothing.

    Raises:
        InputError: the other run's files are shorter than they were at the checkpoint, or went away meanwhile.
        StorageError: the run folder cannot be written.
    """
    _log.info("beginning after step %d of %s", trunk.step, show_path(trunk.run))
    state = dict(trunk.manifest["state"])
    texts = {name: _read_part(trunk, name, state) for name in OWN_FILES}
    texts["metrics"] = "".join(line for line in texts["metrics"].splitlines(True) if _is_own(line, config.trainer))
    for name, text in texts.items():
        if text:
            write_text(run_folder.path / OWN_FILES[name], text)
    _copy_items(trunk.run, run_folder.path, texts["evaluations"])
    needed = trunk.manifest.get("needed_step")
    earlier = list_checkpoints(trunk.run).get(needed) if isinstance(needed, int) else None
    if earlier is not None:
        copy_checkpoint(earlier, run_folder.checkpoints)
    copy_checkpoint(trunk.checkpoint, run_folder.checkpoints, {**state, "observers": _observers(state, texts)})


def _read_part(trunk: Trunk, name: str, state: Mapping[str, Any]) -> str:
    """What one of the run's own files held at the checkpoint."""
    observer = state.get("observers", {}).get(name)
    length = observer.get("offset", 0) if isinstance(observer, Mapping) else 0
    path = trunk.run / OWN_FILES[name]
    if not length:
        return ""
    with storage_errors(path):
        data = path.read_bytes()[:length] if path.is_file() else b""
    if len(data) < length:
        found = f"{len(data)} of the {length} bytes that it had at step {trunk.step}"
        action = "put the file back, branch from another run, or train from step 0 with branch_from=null"
        raise InputError.about(path, "the record of the run to branch from is cut", found, action)
    return data.decode("utf-8", "replace")


def _is_own(line: str, trainer: TrainerConfig) -> bool:
    """Whether a row of metrics is one that this run would have written: the other's last step has rows of its own."""
    row = json.loads(line)
    every = trainer.log_every_steps if row.get("split") == "train" else trainer.validate_every_steps
    return row["step"] % every == 0 or row["step"] == trainer.max_steps


def _observers(state: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """States of this run's own files and of callbacks; a logger's would go on with the other run's place."""
    found = {name: one for name, one in state.get("observers", {}).items() if name.partition(".")[0] != "logger"}
    for name, text in texts.items():
        if name in found:
            found[name] = {**found[name], "offset": len(text.encode())}
    return found


def _copy_items(source: Path, target: Path, rows: str) -> None:
    """The items' results that rows of evaluations name."""
    places = {json.loads(line).get("file") for line in rows.splitlines()}
    for place in sorted(filter(None, places)):
        if Path(place).parent == Path(FOLDER) and (source / place).is_file():
            make_folder(target / FOLDER)
            with storage_errors(target / place):
                shutil.copyfile(source / place, target / place)
