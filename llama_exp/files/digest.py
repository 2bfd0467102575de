"""Digests of files, of texts as files, and of arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any


def digest_of(file: FileIO | BufferedReader) -> str:
    """Hexadecimal SHA-256 of an open file's bytes, from its position on."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path, hasher: Any = None) -> str:
    """Hexadecimal digest of a file's bytes.

    Args:
        path: of the file.
        hasher: of `hashlib`, which may have been fed a beginning that the file itself lacks; None: SHA-256.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return digest_of(file) if hasher is None else hashlib.file_digest(file, lambda: hasher).hexdigest()


def size_and_digest(path: Path) -> dict[str, Any]:
    """`{"bytes": size, "sha256": digest}`, as manifests have it; raises OSError."""
    with open(path, "rb") as file:
        digest = digest_of(file)
        return {"bytes": file.tell(), "sha256": digest}


def array_digest(arrays: Iterable[tuple[str, Any]]) -> str:
    """Hexadecimal SHA-256 over path, dtype, shape and bytes of NumPy arrays, in their order, one at a time."""
    digest = hashlib.sha256()
    for path, array in arrays:
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view("uint8").data)
    return digest.hexdigest()


def text_digest(text: str | None) -> str | None:
    """Hexadecimal SHA-256 of a text, that of the UTF-8 file which holds it; None of none."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()
