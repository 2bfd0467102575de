"""Checkpoints: whole or invisible, verified before use, never the last valid one deleted.

    checkpoints/step-00000040/
        trainable.safetensors   raw trainable variables by path: every weight, or with LoRA the adapters unmerged
        optimizer.safetensors   the optimizer's variables
        manifest.json           what the rest means, size and sha256 of every file, and of itself

A save writes into `step-00000040.tmp-<nonce>/`, every file through to the disk, the manifest last; then renames the
folder, syncs its parent and only then removes older ones. So after a crash or power cut at any moment the folder
`step-00000040` either does not exist or is complete. Only the manifest's digests say that a checkpoint is valid, and
only the step in its name says which is newest: no marker file, no modification times.

Knows NumPy arrays and JSON, no framework.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.errors import InputError, NumericalError, Problem, StorageError
from llama_exp.files.writing import sync_folder
from llama_exp.limits.trainer import LIMITS
from llama_exp.trainer.tensor_file import file_digest, read_tensors, write_blocks, write_tensors

SCHEMA = 1
FOLDER = re.compile(r"step-(\d{8,})")
LEFTOVER = re.compile(r"step-\d{8,}\.tmp-[0-9a-f]{8}")
CORRUPT = re.compile(r"step-\d{8,}\.corrupt-\d+")
_log = logging.getLogger(__name__)


class _Invalid(Exception):
    """Why a checkpoint folder cannot be used."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    step: finished optimizer steps. tensors: group (`trainable`, `optimizer`) -> name -> array. state: JSON that the
    trainer wrote. facts: versions, backend, threads of the process that saved. base_digest: of the frozen weights.
    config_hash: of the run's configuration. folder: where it lies.
    """

    step: int
    tensors: dict[str, dict[str, np.ndarray]]
    state: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    base_digest: str = ""
    config_hash: str = ""
    folder: Path = Path()


class Checkpoints:
    """The checkpoints of one run. One process at a time may save (the run folder's lock sees to it).

    Args:
        folder: created by the first save.
        keep: how many of the newest to keep, at least 1.
        config_hash: recorded in every manifest.
        facts: JSON about this process (versions, backend, threads), recorded and compared at a resume.
    """

    def __init__(self, folder: Path, *, keep: int, config_hash: str, facts: Mapping[str, Any]):
        LIMITS.require(keep_checkpoints=keep)
        self.folder = Path(folder)
        self.keep = keep
        self.config_hash = config_hash
        self.facts = dict(facts)
        self._verified: set[int] = set()

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, np.ndarray]], state: Mapping[str, Any], base_digest: str
    ) -> Path:
        """Writes a checkpoint and removes those beyond `keep`.

        Args:
            step: finished optimizer steps.
            tensors: group -> name -> array.
            state: JSON, strict (no NaN).
            base_digest: of the weights that are not among `tensors`.

        Returns:
            Its folder.

        Raises:
            NumericalError: an array holds NaN or infinity; nothing was written.
            StorageError: it could not be written; older checkpoints are intact, the draft is removed.
        """
        _refuse_non_finite(step, tensors, self.newest_step())
        target = self.folder / f"step-{step:08d}"
        draft = self._hidden(target)
        try:
            os.makedirs(self.folder, exist_ok=True)
            self._remove_leftovers()
            os.mkdir(draft)
            files = {
                f"{group}.safetensors": write_tensors(draft / f"{group}.safetensors", arrays)
                for group, arrays in tensors.items()
            }
            manifest = {
                "schema": SCHEMA,
                "step": step,
                "config_hash": self.config_hash,
                "base_digest": base_digest,
                "facts": self.facts,
                "files": files,
                "state": dict(state),
            }
            write_blocks(draft / "manifest.json", [_manifest_bytes(manifest)])
            sync_folder(draft)
            if target.exists():  # of an attempt that this run has gone back behind
                os.rename(target, self._hidden(target))
            os.rename(draft, target)
            sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise StorageError(_storage_problem(target, tensors, error)) from error
        self._verified.add(step)
        self._prune()
        return target

    def newest_step(self) -> int | None:
        """The step of the newest checkpoint, valid or not; None without any."""
        return max(self._steps(), default=None)

    def newest(self) -> Checkpoint | None:
        """The newest valid checkpoint; None if there never was one.

        A damaged one is renamed to `*.corrupt-1`, with a warning that names file and digests, and the one before is
        tried.

        Raises:
            InputError: there are checkpoints, but none is valid: starting from scratch would hide a loss.
        """
        reasons = []
        for step in sorted(self._steps(), reverse=True):
            folder = self.folder / f"step-{step:08d}"
            try:
                checkpoint = _read(folder)
            except _Invalid as reason:
                aside = _set_aside(folder)
                reasons.append(f"{folder.name}: {reason}")
                _log.warning("checkpoint %s is damaged (%s); renamed to %s", folder, reason, aside.name)
                continue
            if reasons:
                _log.warning("going back to the checkpoint of step %d; later steps run again", step)
            self._verified.add(step)
            return checkpoint
        entries = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        damaged = [entry.name for entry in entries if CORRUPT.fullmatch(entry.name)]
        if damaged:
            found = "; ".join(reasons) or ", ".join(damaged)
            raise InputError(
                Problem("no checkpoint is valid", str(self.folder), found, "start afresh with resume=none")
            )
        return None

    def _steps(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        matches = (FOLDER.fullmatch(entry.name) for entry in self.folder.iterdir())
        return [int(match[1]) for match in matches if match]

    def _prune(self) -> None:
        kept = 0
        for step in sorted(self._steps(), reverse=True):
            folder = self.folder / f"step-{step:08d}"
            if kept >= self.keep:
                try:
                    hidden = self._hidden(folder)
                    os.rename(folder, hidden)  # at once, so that a half-removed one is never taken for a damaged one
                    shutil.rmtree(hidden)
                except OSError as error:
                    _log.warning("old checkpoint %s could not be removed: %s", folder, error)
            elif self._is_valid(step, folder):
                kept += 1

    def _is_valid(self, step: int, folder: Path) -> bool:
        if step not in self._verified:
            try:
                _verify(folder)
            except (_Invalid, InputError):
                return False
            self._verified.add(step)
        return True

    def _hidden(self, target: Path) -> Path:
        return target.with_name(f"{target.name}.tmp-{uuid.uuid4().hex[:8]}")

    def _remove_leftovers(self) -> None:
        for entry in self.folder.iterdir():
            if LEFTOVER.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)


def load(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, named by the user.

    Raises:
        InputError: there is none, it is damaged, or of a newer format.
    """
    folder = Path(folder)
    try:
        return _read(folder)
    except _Invalid as reason:
        present = sorted(entry.name for entry in folder.parent.glob("step-*") if FOLDER.fullmatch(entry.name))
        action = f"choose another: {', '.join(present)}" if present else "check the path, or use resume=none"
        raise InputError(Problem("is no valid checkpoint", str(folder), str(reason), action)) from reason


def _read(folder: Path) -> Checkpoint:
    manifest = _verify(folder)
    try:
        tensors = {Path(name).stem: read_tensors(folder / name) for name in manifest["files"]}
    except Exception as error:  # the library's own type for a bad header
        raise _Invalid(f"unreadable: {error}") from error
    for group, arrays in tensors.items():
        for name, array in arrays.items():
            if not _is_finite(array):
                raise _Invalid(f"{group}.safetensors: {name} is not finite")
    return Checkpoint(
        step=manifest["step"],
        tensors=tensors,
        state=manifest["state"],
        facts=manifest["facts"],
        base_digest=manifest["base_digest"],
        config_hash=manifest["config_hash"],
        folder=folder,
    )


def _verify(folder: Path) -> dict[str, Any]:
    """The manifest, if it and every file are as they were written."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
        expected = manifest.pop("sha256")
        actual = hashlib.sha256(_canonical(manifest)).hexdigest()
        if actual != expected:
            raise _Invalid(f"manifest.json: sha256 {actual}, expected {expected}")
        if manifest["schema"] > SCHEMA:
            raise InputError(
                Problem(
                    "the checkpoint was written by a newer llama_exp",
                    str(folder),
                    f"schema {manifest['schema']}, this version reads {SCHEMA}",
                    "upgrade llama_exp, or start afresh with resume=none",
                )
            )
        for name, expected in manifest["files"].items():
            if name != Path(name).name:
                raise _Invalid(f"manifest.json names a file elsewhere: {name}")
            actual = file_digest(folder / name)
            if actual != expected:
                raise _Invalid(f"{name}: {_shown(actual)}, expected {_shown(expected)}")
    except FileNotFoundError as error:
        raise _Invalid(f"{Path(error.filename).name} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _Invalid(f"manifest.json is unreadable: {error!r}") from error
    return manifest


def _shown(digest: Mapping[str, Any]) -> str:
    return f"{digest['bytes']} bytes, sha256 {digest['sha256']}"


def _manifest_bytes(manifest: dict[str, Any]) -> memoryview:
    manifest = json.loads(json.dumps(manifest, allow_nan=False))  # as a reader will see it: string keys, lists
    digest = hashlib.sha256(_canonical(manifest)).hexdigest()
    return memoryview(json.dumps(manifest | {"sha256": digest}, indent=1, allow_nan=False).encode())


def _canonical(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _is_finite(array: np.ndarray) -> bool:
    if array.dtype.kind in "biu":
        return True
    return bool(np.isfinite(array.astype("float32") if array.dtype.itemsize < 4 else array).all())


def _refuse_non_finite(step: int, tensors, newest: int | None) -> None:
    for group, arrays in tensors.items():
        for name, array in arrays.items():
            if not _is_finite(array):
                last = "none" if newest is None else f"step {newest}"
                raise NumericalError(
                    Problem(
                        f"{group} variable {name} is not finite at step {step}; no checkpoint was written",
                        "optimizer.learning_rate",
                        f"last good checkpoint: {last}",
                        "lower optimizer.learning_rate or set optimizer.global_clipnorm, then resume=auto",
                    )
                )


def _set_aside(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.corrupt-{number}")).exists():
        number += 1
    os.rename(folder, aside)
    return aside


def _storage_problem(target: Path, tensors, error: OSError) -> Problem:
    needed = sum(array.nbytes for arrays in tensors.values() for array in arrays.values())
    existing = next((path for path in target.parents if path.exists()), Path("/"))
    free = shutil.disk_usage(existing).free
    return Problem(
        "the checkpoint could not be written",
        str(target),
        f"{error.strerror or error}; {needed} bytes needed, {free} free",
        "free some space or choose another folder with hydra.run.dir=<folder>; older checkpoints are intact",
    )
