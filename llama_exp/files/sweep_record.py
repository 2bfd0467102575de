"""Hydra's own record of a sweep, `multirun.yaml`: nobody else reads it, and no secret stays in it.

Hydra writes the composed config there as it is, passwords and all, for all to read, and offers no way to change that.
Therefore the file is made first, private, and is written again as soon as the sweep's first job begins.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from llama_exp.files.json_text import plain
from llama_exp.files.redact import redact_assignments
from llama_exp.files.writing import make_folder, storage_errors, write_text
from llama_exp.files.yaml_file import read_yaml

NAME = "multirun.yaml"
PRIVATE_MODE = 0o600


@contextlib.contextmanager
def private_sweep_record(sweep_dir: Path | None) -> Iterator[None]:
    """Around Hydra's work on a sweep (None: a single job): the record is its owner's alone, and masked at the end.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    if sweep_dir is None:
        yield
        return
    make_folder(sweep_dir)
    path = sweep_dir / NAME
    with storage_errors(path):
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_MODE))
    try:
        yield
    finally:
        mask_sweep_record(sweep_dir)


def mask_sweep_record(sweep_dir: Path) -> None:
    """Writes the record again with secrets masked; nothing to do where a sweeper leaves none, or it is done.

    Raises:
        InputError: the record is no YAML mapping.
        StorageError: it cannot be written.
    """
    path = sweep_dir / NAME
    if path.exists() and path.stat().st_size > 0:
        record = read_yaml(sweep_dir, NAME)
        masked = plain(record)
        _mask_overrides(masked.get("hydra"))
        if masked != record:
            write_text(path, yaml.safe_dump(masked, sort_keys=False, allow_unicode=True, width=10**9))
            path.chmod(PRIVATE_MODE)


def _mask_overrides(hydra: Any) -> None:
    """In what was typed, secrets are known by the names before them."""
    overrides: Any = hydra.get("overrides") if isinstance(hydra, dict) else None
    for key, lines in overrides.items() if isinstance(overrides, dict) else ():
        overrides[key] = [redact_assignments(line) if isinstance(line, str) else line for line in lines or ()]
