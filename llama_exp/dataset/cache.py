"""Folders that are built once under a content key, and verified each time they are opened.

    <root>/<key>/            the result: files plus manifest.json (sizes and SHA-256 of each file, facts)
    <root>/<key>.lock        held while one process builds, so that the others wait for it
    <root>/<key>.tmp-<id>/   a build in progress; it becomes <key>/ by one rename

A folder that does not match its manifest is built again, with a warning.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llama_exp.errors import Problem, StorageError

log = logging.getLogger("llama_exp")

MANIFEST = "manifest.json"


def content_key(**parts: Any) -> str:
    """Hexadecimal SHA-256 of JSON-serializable parts, independent of their order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached_folder(root: Path, key: str, build: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """The verified folder `<root>/<key>` and its facts; built first where it is missing or damaged.

    Args:
        root: Parent folder, made if needed.
        key: Names the content: the same key always stands for the same bytes.
        build: Fills an empty folder and returns JSON-serializable facts about it.

    Raises:
        StorageError: a file or folder cannot be written.
    """
    folder = root / key
    facts, _ = _verify(folder)
    if facts is not None:
        return folder, facts
    with storage_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f"{key}.lock"):
            facts, damage = _verify(folder)
            if facts is not None:
                return folder, facts
            if damage:
                log.warning("cache folder %s is damaged (%s): it is built again", folder, damage)
                shutil.rmtree(folder)
            for abandoned in root.glob(f"{key}.tmp-*"):  # the lock is ours, so whoever wrote these is gone
                shutil.rmtree(abandoned, ignore_errors=True)
            return folder, _build(folder, build)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None where the file is missing, unreadable or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file that readers see whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file; the system frees it when the process dies."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turns operating system errors into a StorageError about the cache folder."""
    try:
        yield
    except OSError as error:
        raise storage_error(folder, error) from error


def storage_error(folder: Path, error: Exception) -> StorageError:
    """The StorageError for a cache folder that could not be written."""
    return StorageError(
        Problem(
            what="the cache cannot be written",
            where="runtime.cache_dir",
            found=f"{folder}: {error}",
            action="free some space, or point runtime.cache_dir to a folder that this user may write",
        )
    )


def file_digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build(folder: Path, build: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    temporary = folder.with_name(f"{folder.name}.tmp-{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        facts = build(temporary)
        files = {
            path.relative_to(temporary).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        write_json(temporary / MANIFEST, {"files": files, "facts": facts})
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return facts


def _verify(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """(facts, "") of an intact folder, (None, "") of a missing one, (None, damage) of a damaged one."""
    if not folder.exists():
        return None, ""
    manifest = read_json(folder / MANIFEST)
    if manifest is None or not isinstance(manifest.get("files"), dict) or not isinstance(manifest.get("facts"), dict):
        return None, f"{MANIFEST} cannot be read"
    for name, expected in manifest["files"].items():
        path = folder / name
        try:
            intact = path.stat().st_size == expected["bytes"] and file_digest(path) == expected["sha256"]
        except (OSError, KeyError, TypeError):
            intact = False
        if not intact:
            return None, f"{name} does not match its digest"
    return manifest["facts"], ""
