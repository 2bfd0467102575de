"""The manifest of a checkpoint folder: what it means, size and sha256 of every file, and of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError, Problem
from llama_exp.files.digest import size_and_digest
from llama_exp.files.writing import write_blocks

MANIFEST = "manifest.json"
SCHEMA = 1
SHOWN = 500
_FORM = {
    "schema": int,
    "step": int,
    "config_hash": str,
    "base_digest": str,
    "facts": dict,
    "files": dict,
    "state": dict,
}


class Invalid(Exception):
    """Why a checkpoint folder cannot be used; a manifest may be of any length, the reason is not."""

    def __init__(self, reason: str):
        super().__init__(reason if len(reason) <= SHOWN else f"{reason[:SHOWN]}...")


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest of a folder, sealed with its own digest; its `files` are size and digest by name.

    Raises:
        OSError: it cannot be written, or exists.
        ValueError: a value that strict JSON does not have (NaN).
    """
    seen = json.loads(json.dumps(dict(manifest), allow_nan=False))  # as a reader will see it: string keys, lists
    sealed = seen | {"sha256": _digest(seen)}
    write_blocks(folder / MANIFEST, [json.dumps(sealed, indent=1, allow_nan=False).encode()])


def verified_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, if it and every file are as they were written.

    Raises:
        Invalid: they are not.
        InputError: a newer version of this package wrote it.
    """
    try:
        manifest = _read_manifest(folder)
        for name, expected in manifest["files"].items():
            if name != Path(name).name:
                raise Invalid(f"{MANIFEST} names a file elsewhere: {name}")
            actual = size_and_digest(folder / name)
            if actual != expected:
                raise Invalid(f"{name}: {_shown(actual)}, expected {_shown(expected)}")
    except FileNotFoundError as error:
        raise Invalid(f"{Path(error.filename).name} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Invalid(f"{MANIFEST} is unreadable: {type(error).__name__}: {error}") from error
    return manifest


def _read_manifest(folder: Path) -> dict[str, Any]:
    # Its digest says more than the strictness of `read_json`, which would refuse half a character in a callback's text.
    manifest = json.loads((folder / MANIFEST).read_bytes())
    expected = manifest.pop("sha256")
    actual = _digest(manifest)
    if actual != expected:
        raise Invalid(f"{MANIFEST}: sha256 {actual}, expected {expected}")
    _require_form(manifest)
    if manifest["schema"] > SCHEMA:
        raise InputError(
            Problem(
                "the checkpoint was written by a newer llama_exp",
                str(folder),
                f"schema {manifest['schema']}, this version reads {SCHEMA}",
                "upgrade llama_exp, or start afresh with resume=none",
            )
        )
    return manifest


def _require_form(manifest: dict[str, Any]) -> None:
    """Raises `Invalid` for a manifest that this package did not write, though its own digest is right."""
    for key, kind in _FORM.items():
        if type(manifest.get(key)) is not kind:
            raise Invalid(f"{MANIFEST}: {key} is {str(manifest.get(key))[:60]}")


def _digest(manifest: dict[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _shown(digest: Mapping[str, Any]) -> str:
    return f"{digest['bytes']} bytes, sha256 {digest['sha256']}"
