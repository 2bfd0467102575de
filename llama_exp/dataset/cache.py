"""Folders that are built once under a content key, and verified each time they are opened.

    <root>/<key>/            the result: files plus manifest.json (sizes and SHA-256 of each file, facts)
    <root>/<key>.lock        held while one process builds, so that the others wait for it
    <root>/<key>.tmp-<id>/   a build in progress; it becomes <key>/ by one rename

A folder that does not match its manifest is built again, with a warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_exp.errors import Problem
from llama_exp.files.digest import size_and_digest
from llama_exp.files.json_file import read_record
from llama_exp.files.lock import held
from llama_exp.files.whole_folder import remove_stale, whole_folder
from llama_exp.files.writing import storage_errors, write_json

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
    with cache_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with held(root / f"{key}.lock"):
            facts, damage = _verify(folder)
            if facts is not None:
                return folder, facts
            if damage:
                log.warning("cache folder %s is damaged (%s): it is built again", folder, damage)
            remove_stale(root, re.escape(key))
            return folder, _build(folder, build)


def cache_errors(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Turns operating system errors of a block into a StorageError about the cache folder."""
    return storage_errors(folder, lambda error: cache_problem(folder, error))


def cache_problem(folder: Path, error: Exception) -> Problem:
    """What is wrong with a cache folder that could not be written."""
    return Problem(
        what="the cache cannot be written",
        where="runtime.cache_dir",
        found=f"{folder}: {error}",
        action="free some space, or point runtime.cache_dir to a folder that this user may write",
    )


def _build(folder: Path, build: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    with whole_folder(folder) as draft:
        facts = build(draft)
        files = {
            path.relative_to(draft).as_posix(): size_and_digest(path)
            for path in sorted(draft.rglob("*"))
            if path.is_file()
        }
        write_json(draft / MANIFEST, {"files": files, "facts": facts})
    return facts


def _verify(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """(facts, "") of an intact folder, (None, "") of a missing one, (None, damage) of a damaged one."""
    if not folder.exists():
        return None, ""
    manifest = read_record(folder / MANIFEST)
    if manifest is None or not isinstance(manifest.get("files"), dict) or not isinstance(manifest.get("facts"), dict):
        return None, f"{MANIFEST} cannot be read"
    for name, expected in manifest["files"].items():
        path = folder / name
        try:
            intact = size_and_digest(path) == expected
        except OSError:
            intact = False
        if not intact:
            return None, f"{name} does not match its digest"
    return manifest["facts"], ""
