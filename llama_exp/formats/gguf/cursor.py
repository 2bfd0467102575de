"""The head of a GGUF file, read from front to back; every length is checked against what is left of the file."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, NoReturn

from llama_exp.errors import InputError, Problem

# The largest vocabularies in use (256 thousand tokens with their merges) take some 15 MiB.
MAX_HEAD_BYTES = 64 * 2**20
_MAX_NAME_BYTES = 1024
_READ_BYTES = 4 * 2**20

FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
SCALARS = {kind: struct.Struct(f"<{letter}") for kind, letter in FORMATS.items()}
LENGTH = SCALARS[10]


def reject(path, what, found, action) -> NoReturn:
    """Raises InputError about a file."""
    raise InputError(Problem(what, str(path), found, action))


class Cursor:
    """Reads the head of a file from front to back, never more than is asked for by some megabytes."""

    def __init__(self, path: Path, file: BinaryIO):
        self.path, self.file, self.size = path, file, os.fstat(file.fileno()).st_size
        self.head, self.position = bytearray(), 0

    def reject(self, what, found, action="download the file again") -> NoReturn:
        """Raises InputError about this file."""
        reject(self.path, what, found, action)

    def require(self, length: int, what: str) -> None:
        """Makes the next `length` bytes available."""
        end = self.position + length
        if end > self.size:
            self.reject(f"{what} does not fit into the file", f"{length} bytes, {self.size - self.position} are left")
        if end > MAX_HEAD_BYTES:
            self.reject(f"{what} is too long", f"{length} bytes; the head may have {MAX_HEAD_BYTES}")
        while len(self.head) < end:
            chunk = os.pread(self.file.fileno(), max(_READ_BYTES, end - len(self.head)), len(self.head))
            if not chunk:
                self.reject("the file became shorter while it was read", f"{len(self.head)} of {self.size} bytes")
            self.head += chunk

    def scalar(self, kind: int, what: str) -> int | float | bool:
        """The next number or flag, `kind` being GGUF's number of its type."""
        layout = SCALARS[kind]
        self.require(layout.size, what)
        if FORMATS[kind] == "?" and self.head[self.position] > 1:
            self.reject(f"{what} must be true (1) or false (0)", str(self.head[self.position]))
        (value,) = layout.unpack_from(self.head, self.position)
        self.position += layout.size
        return value

    def count(self, what: str, limit: int, item_bytes: int) -> int:
        """A number of things that take at least `item_bytes` each."""
        value = int(self.scalar(10, what))
        if value > limit or value * item_bytes > self.size - self.position:
            self.reject(f"{what} is impossible", f"{value}; {self.size - self.position} bytes are left")
        return value

    def text(self, what: str, is_name: bool = False) -> str:
        """The next string; a name is neither empty nor long."""
        length = int(self.scalar(10, what))
        if is_name and not 1 <= length <= _MAX_NAME_BYTES:
            self.reject(f"{what} has an impossible length", f"{length} bytes; 1 to {_MAX_NAME_BYTES} are allowed")
        self.require(length, what)
        stored = self.head[self.position : self.position + length]
        self.position += length
        try:
            return stored.decode("utf-8")
        except UnicodeDecodeError as error:
            self.reject(f"{what} is not UTF-8", str(error))

    def skip_strings(self, count: int, what: str) -> None:
        """Walks over strings: where one ends is known only from its length."""
        position, unpack = self.position, LENGTH.unpack_from
        for _ in range(count):
            if position + LENGTH.size > len(self.head):
                self.position = position
                self.require(LENGTH.size, what)
            (length,) = unpack(self.head, position)
            position += LENGTH.size + length
            if position > len(self.head):
                self.position = position - length
                self.require(length, what)
        self.position = position
