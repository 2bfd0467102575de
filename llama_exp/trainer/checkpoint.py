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

import itertools
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.errors import InputError, NumericalError, Problem
from llama_exp.files.process import ALONE, Process
from llama_exp.files.whole_folder import remove_folder, remove_stale, whole_folder
from llama_exp.files.writing import set_aside, storage_errors
from llama_exp.formats.plain_arrays import is_finite
from llama_exp.limits.trainer import LIMITS
from llama_exp.trainer.manifest import SCHEMA, Invalid, verified_manifest, write_manifest
from llama_exp.trainer.tensor_file import read_tensors, write_tensors

NAME = r"step-(\d{8,})"
FOLDER = re.compile(NAME)
NEEDED = "needed_step"  # of a manifest
CORRUPT = re.compile(r"step-\d{8,}\.corrupt-\d+")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    step: finished optimizer steps. tensors: group (`trainable`, `optimizer`) -> name -> array. state: JSON that the
    trainer wrote. facts: versions, backend, threads of the process that saved. base_digest: of the frozen weights.
    config_hash: of the run's configuration. folder: where it lies. needed: the step of an earlier one that it needs.
    """

    step: int
    tensors: dict[str, dict[str, np.ndarray]]
    state: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    base_digest: str = ""
    config_hash: str = ""
    folder: Path = Path()
    needed: int | None = None


class Checkpoints:
    """The checkpoints of one run. One process at a time may save (the run folder's lock sees to it).

    Args:
        folder: created by the first save.
        keep: how many of the newest to keep, at least 1.
        config_hash: recorded in every manifest.
        facts: JSON about this process (versions, backend, threads), recorded and compared at a resume.
        process: only the writer's saves leave anything, and only it sets damaged ones aside; all can read.
    """

    def __init__(
        self, folder: Path, *, keep: int, config_hash: str, facts: Mapping[str, Any], process: Process = ALONE
    ):
        LIMITS.require(keep_checkpoints=keep)
        self.folder = Path(folder)
        self.keep = keep
        self.config_hash = config_hash
        self.facts = dict(facts)
        self._process = process
        self._needs: dict[int, int | None] = {}  # step of each verified checkpoint -> of the one that it needs

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, np.ndarray]],
        state: Mapping[str, Any],
        base_digest: str,
        needed: int | None = None,
    ) -> Path:
        """Writes a checkpoint and removes those beyond `keep`; not the writer: checks the arrays alone.

        Args:
            step: finished optimizer steps.
            tensors: group -> name -> array.
            state: JSON, strict (no NaN).
            base_digest: of the weights that are not among `tensors`.
            needed: the step of an earlier checkpoint that stays as long as this one does; None: none has to.

        Returns:
            Its folder.

        Raises:
            NumericalError: an array holds NaN or infinity; nothing was written.
            StorageError: it could not be written; older checkpoints are intact, the draft is removed.
        """
        _refuse_non_finite(step, tensors, self.newest_step())
        target = self._folder_of(step)
        if not self._process.is_writer:
            return target
        with storage_errors(target, lambda error: _storage_problem(target, tensors, error)):
            self.folder.mkdir(exist_ok=True)  # not its parents: a run folder that is gone does not come back
            remove_stale(self.folder, NAME, alone=True)
            with whole_folder(target) as draft:  # in the place of one of an attempt that this run has gone back behind
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
                    NEEDED: needed,
                }
                write_manifest(draft, manifest)
        self._needs[step] = needed
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
            folder = self._folder_of(step)
            try:
                checkpoint = _read(folder)
            except Invalid as reason:
                reasons.append(f"{folder.name}: {reason}")
                self._set_aside(folder, reason)
                continue
            if reasons:
                _log.warning("going back to the checkpoint of step %d; later steps run again", step)
            self._needs[step] = checkpoint.needed
            return checkpoint
        entries = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        damaged = reasons or [entry.name for entry in entries if CORRUPT.fullmatch(entry.name)]
        if damaged:
            found = "; ".join(reasons) or ", ".join(damaged)
            raise InputError(
                Problem("no checkpoint is valid", str(self.folder), found, "start afresh with resume=none")
            )
        return None

    def read(self, step: int) -> Checkpoint:
        """The checkpoint of a step; raises `InputError` if it is gone or damaged."""
        return load(self._folder_of(step))

    def holds(self, step: int) -> bool:
        """Whether there is a valid checkpoint of a step."""
        if step not in self._needs:
            try:
                self._needs[step] = _find_needed(verified_manifest(self._folder_of(step)))
            except (Invalid, InputError):
                return False
        return True

    def _set_aside(self, folder: Path, reason: Invalid) -> None:
        if self._process.is_writer:
            aside = set_aside(folder, "corrupt")
            _log.warning("checkpoint %s is damaged (%s); renamed to %s", folder, reason, aside.name)

    def _folder_of(self, step: int) -> Path:
        return step_folder(self.folder, step)

    def _steps(self) -> list[int]:
        return list_steps(self.folder)

    def _prune(self) -> None:
        """Removes all but the newest valid ones and those that these need."""
        steps = sorted(self._steps(), reverse=True)
        kept = list(itertools.islice(filter(self.holds, steps), self.keep))
        oldest = min(kept, default=0)
        needed = {self._needs.get(step) for step in kept}
        for step in steps:
            if len(kept) < self.keep or step >= oldest or step in needed:
                continue
            folder = self._folder_of(step)
            try:
                remove_folder(folder)  # at once, so that a half-removed one is never taken for a damaged one
            except OSError as error:
                _log.warning("old checkpoint %s could not be removed: %s", folder, error)


def step_folder(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step lies in the folder of all of a run."""
    return checkpoints / f"step-{step:08d}"


def list_steps(checkpoints: Path) -> list[int]:
    """Steps that there are checkpoints of, valid or not, in order."""
    if not checkpoints.is_dir():
        return []
    matches = (FOLDER.fullmatch(entry.name) for entry in checkpoints.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def verify(folder: Path, action: str) -> dict[str, Any]:
    """The manifest of a checkpoint whose every file is as it was written.

    Args:
        folder: the checkpoint's.
        action: what to do otherwise.

    Raises:
        InputError: there is none, it is damaged, or of a newer format.
    """
    try:
        return verified_manifest(folder)
    except Invalid as reason:
        raise InputError(Problem("is no valid checkpoint", str(folder), str(reason), action)) from reason


def load(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, named by the user.

    Raises:
        InputError: there is none, it is damaged, or of a newer format.
    """
    folder = Path(folder)
    try:
        return _read(folder)
    except Invalid as reason:
        others = (entry.name for entry in folder.parent.glob("step-*") if FOLDER.fullmatch(entry.name))
        present = sorted(name for name in others if name != folder.name)
        action = f"choose another: {', '.join(present)}" if present else "check the path, or use resume=none"
        raise InputError(Problem("is no valid checkpoint", str(folder), str(reason), action)) from reason


def _read(folder: Path) -> Checkpoint:
    manifest = verified_manifest(folder)
    match = FOLDER.fullmatch(folder.name)
    if match and int(match[1]) != manifest["step"]:
        raise Invalid(f"the manifest is of step {manifest['step']}")
    try:
        tensors = {Path(name).stem: read_tensors(folder / name) for name in manifest["files"]}
    except Exception as error:  # the library's own type for a bad header
        raise Invalid(f"unreadable: {error}") from error
    for group, arrays in tensors.items():
        for name, array in arrays.items():
            if not is_finite(array):
                raise Invalid(f"{group}.safetensors: {name} is not finite")
    return Checkpoint(
        step=manifest["step"],
        tensors=tensors,
        state=manifest["state"],
        facts=manifest["facts"],
        base_digest=manifest["base_digest"],
        config_hash=manifest["config_hash"],
        folder=folder,
        needed=_find_needed(manifest),
    )


def _find_needed(manifest: Mapping[str, Any]) -> int | None:
    step = manifest.get(NEEDED)
    return step if type(step) is int else None


def _refuse_non_finite(step: int, tensors, newest: int | None) -> None:
    for group, arrays in tensors.items():
        for name, array in arrays.items():
            if not is_finite(array):
                last = "none" if newest is None else f"step {newest}"
                raise NumericalError(
                    Problem(
                        f"{group} variable {name} is not finite at step {step}; no checkpoint was written",
                        "optimizer.learning_rate",
                        f"last good checkpoint: {last}",
                        "lower optimizer.learning_rate or set optimizer.global_clipnorm, then resume=auto",
                    )
                )


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
