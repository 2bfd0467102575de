"""A checkpoint of one run as that of another."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.whole_folder import remove_stale, whole_folder
from llama_exp.files.writing import storage_errors
from llama_exp.trainer.checkpoint import NAME
from llama_exp.trainer.manifest import Invalid, verified_manifest, write_manifest


def copy_checkpoint(source: Path, checkpoints: Path, state: Mapping[str, Any] | None = None) -> Path:
    """Copies a checkpoint whole or not at all, verified before and after.

    Args:
        source: its folder.
        checkpoints: folder of the other run's checkpoints.
        state: what the trainer wrote, changed; None: as it is.

    Returns:
        The copy's folder.

    Raises:
        InputError: it is damaged, or went away while it was copied.
        StorageError: the copy cannot be written.
    """
    target = checkpoints / source.name
    with storage_errors(target):
        checkpoints.mkdir(exist_ok=True)
        remove_stale(checkpoints, NAME, alone=True)
        try:
            with whole_folder(target) as draft:
                manifest = verified_manifest(source)
                for name in manifest["files"]:
                    shutil.copyfile(source / name, draft / name)
                write_manifest(draft, manifest if state is None else {**manifest, "state": dict(state)})
                verified_manifest(draft)
        except (Invalid, FileNotFoundError) as reason:
            action = "branch from another checkpoint, which its run still keeps (trainer.keep_checkpoints)"
            what = "the checkpoint is damaged, or went away while it was copied"
            raise InputError.about(source, what, str(reason), action) from reason
    return target
