"""An archive of plain files (.tar.gz): the same files make the same bytes, and a foreign one unpacks nowhere else.

    write_archive(path, entries)     sorted names, no times, no owners, and a MANIFEST.json with every file's SHA-256
    unpack_archive(path, folder)     only files of the manifest, only below the folder, only of the sizes it states

`tarfile` would follow what a header says: links, devices, headers of any length. Here a member is an ordinary file with
a short name in it, or the whole archive is refused. Nothing is ever executed.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError, Problem
from llama_exp.files.digest import size_and_digest
from llama_exp.files.json_file import MAX_RECORD_BYTES, open_regular, parse_json
from llama_exp.files.json_text import dump_json
from llama_exp.files.whole_folder import whole_folder
from llama_exp.files.writing import make_folder, replaced, storage_errors, write_blocks

MANIFEST = "MANIFEST.json"
MAX_BYTES = 1 << 32  # of all files together
MAX_FILES = 10_000
MAX_NAME = 100  # of a plain tar header
_BLOCK = 512
_PIECE = 1 << 20
_ACTION = "give an archive as llama-exp pack wrote it, or get it again"

Entry = bytes | Path


def write_archive(path: Path, entries: Mapping[str, Entry], facts: Mapping[str, Any]) -> None:
    """Writes the files into a new archive; the same content gives the same bytes on every machine.

    Args:
        path: the archive; a file that is there is replaced.
        entries: name in the archive -> content, or a file with it. Names are short, relative and ASCII.
        facts: what the manifest says beside the files.

    Raises:
        StorageError: it cannot be written, or a file cannot be read.
    """
    for name in entries:
        if not _is_sound(name):
            raise ValueError(f"{name!r} is no name for a file in an archive")

    make_folder(path.absolute().parent)
    with storage_errors(path, lambda error: _unwritable(path, error)):
        digests = {name: _describe(entry) for name, entry in sorted(entries.items())}
        manifest = (dump_json({**facts, "files": digests}, indent=1) + "\n").encode()
        with replaced(path) as draft:
            with open(draft, "xb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
                _write_all(packed, {MANIFEST: manifest, **dict(sorted(entries.items()))})


def unpack_archive(path: Path, folder: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Unpacks into a folder that is there whole or not at all; one that is there is replaced.

    Args:
        path: the archive.
        folder: where its files go.
        max_bytes: that they may have together.

    Returns:
        The manifest.

    Raises:
        InputError: it is damaged, holds what is no plain file, or is not what its manifest says.
        StorageError: the folder cannot be written.
    """
    make_folder(folder.absolute().parent)
    with storage_errors(folder, lambda error: _unwritable(folder, error)), whole_folder(folder) as draft:
        manifest: dict[str, Any] = {}
        found: dict[str, Any] = {}
        for name, size, blocks in _members(path, max_bytes):
            if not found and name != MANIFEST and not manifest:
                raise _refused(path, "is no archive of a run", f"it begins with {name!r}, not with {MANIFEST}")
            if name == MANIFEST:
                manifest = _read_manifest(path, size, blocks)
                continue
            expected = manifest["files"].get(name)
            if expected is None or name in found:
                what = "is there twice" if name in found else f"is not in {MANIFEST}"
                raise _refused(path, "holds other files than it says", f"{name!r} {what}")
            hasher = hashlib.sha256()
            make_folder((draft / name).parent)
            write_blocks(draft / name, blocks, hasher=hasher)
            found[name] = {"bytes": size, "sha256": hasher.hexdigest()}
            if found[name] != expected:
                raise _refused(path, "is damaged", f"{name}: {found[name]}, {MANIFEST} says {expected}")
        if lacking := sorted(manifest.get("files", {}).keys() - found.keys()):
            raise _refused(path, "is cut short", f"it lacks {', '.join(lacking[:3])}")
        if not manifest:
            raise _refused(path, "is no archive of a run", "it is empty")
    return manifest


def _describe(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, Path):
        return size_and_digest(entry)
    return {"bytes": len(entry), "sha256": hashlib.sha256(entry).hexdigest()}


def _write_all(packed: gzip.GzipFile, entries: Mapping[str, Entry]) -> None:
    for name, entry in entries.items():
        info = tarfile.TarInfo(name)
        info.size = entry.stat().st_size if isinstance(entry, Path) else len(entry)
        packed.write(info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        written = 0
        for block in _blocks_of(entry):
            packed.write(block)
            written += len(block)
        if written != info.size:
            raise OSError(f"{name} changed while it was packed")
        packed.write(bytes(-written % _BLOCK))
    packed.write(bytes(2 * _BLOCK))


def _blocks_of(entry: Entry) -> Iterator[bytes]:
    if isinstance(entry, bytes):
        yield entry
        return
    with open(entry, "rb") as file:
        while block := file.read(_PIECE):
            yield block


def _members(path: Path, max_bytes: int) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Name, size and content of each member; whatever else an archive may hold refuses it."""
    total = 0
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(open_regular(path))
        packed = stack.enter_context(gzip.GzipFile(fileobj=raw, mode="rb"))
        for number in range(MAX_FILES + 1):
            info = _read_header(path, packed)
            if info is None:
                return
            total += info.size
            if number == MAX_FILES or total > max_bytes:
                found = f"more than {MAX_FILES} files" if total <= max_bytes else f"more than {max_bytes} bytes"
                raise _refused(path, "is too large for what it holds", found)
            left = [info.size + -info.size % _BLOCK]
            yield info.name, info.size, _content(path, packed, info.size, left)
            if left[0]:
                raise RuntimeError(f"{info.name} was not read to its end")


def _read_header(path: Path, packed: gzip.GzipFile) -> tarfile.TarInfo | None:
    """The next member's header; None at the end."""
    block = _read(path, packed, _BLOCK)
    if not any(block):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise _refused(path, "is no archive, or a damaged one", str(error)) from error
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise _refused(path, "holds more than plain files", f"{info.name[:60]!r} of type {info.type!r}")
    if not _is_sound(info.name) or info.size < 0:
        raise _refused(path, "holds a file whose name leads elsewhere", repr(info.name[:60]))
    return info


def _content(path: Path, packed: gzip.GzipFile, size: int, left: list[int]) -> Iterator[bytes]:
    while size:
        block = _read(path, packed, min(size, _PIECE))
        size -= len(block)
        left[0] -= len(block)
        yield block
    _read(path, packed, left[0])
    left[0] = 0


def _read(path: Path, packed: gzip.GzipFile, size: int) -> bytes:
    """So many bytes, or the archive is damaged."""
    try:
        block = packed.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise _refused(path, "is no archive, or a damaged one", str(error)) from error
    if len(block) != size:
        raise _refused(path, "is cut short", f"{size - len(block)} bytes are missing")
    return block


def _read_manifest(path: Path, size: int, blocks: Iterator[bytes]) -> dict[str, Any]:
    if size > MAX_RECORD_BYTES:
        raise _refused(path, f"its {MANIFEST} is too large", f"{size} bytes")
    manifest = parse_json(path / MANIFEST, b"".join(blocks))
    files = manifest.get("files")
    sound = isinstance(files, dict) and all(
        _is_sound(name) and isinstance(facts, dict) for name, facts in files.items()
    )
    if not sound:
        raise _refused(path, f"its {MANIFEST} is damaged", "no list `files` of names, sizes and digests")
    return manifest


def _is_sound(name: str) -> bool:
    """Whether a name is plain: relative, below its folder, of ASCII that every system takes."""
    parts = name.split("/")
    if not name.isascii() or not name.isprintable() or len(name) > MAX_NAME or "\\" in name or ":" in name:
        return False
    return all(part not in ("", ".", "..") for part in parts)


def _refused(path: Path, what: str, found: str) -> InputError:
    return InputError.about(path, what, found, _ACTION)


def _unwritable(path: Path, error: OSError) -> Problem:
    action = "choose another place with --to, or make it writable"
    return Problem("cannot be written", str(path), error.strerror or str(error), action)
