"""A bounded reader of GGUF files, versions 2 and 3, little-endian.

    magic, version, counts | key, type, value ... | name, dimensions, type, offset ... | padding | tensors

A file is an untrusted claim: every count and length is checked against what is left of the file before anything is
allocated or looped over, and the table of tensors is checked as a whole before one of them is read. What is opened
stays open, so that the bytes read are those of the file that was checked. Imports no framework.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from llama_exp.files.json_file import open_regular
from llama_exp.formats.gguf.blocks import BLOCK_TYPES, OTHER_TYPES, BlockType
from llama_exp.formats.gguf.cursor import FORMATS, LENGTH, MAX_HEAD_BYTES, SCALARS, Cursor, reject

_MAGIC = b"GGUF"
_DEFAULT_ALIGNMENT = 32
_MAX_ENTRIES = 65536  # keys, and tensors: 126 layers of Llama have 1138
_MAX_DIMENSIONS = 4

_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Array:
    """An array of the metadata that lies in `head` from `start` on, and is decoded only when asked for.

    Attributes:
        kind: GGUF's number of the type of its items.
        count: of items.
    """

    kind: int
    count: int
    head: bytearray
    start: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it lies in the file.

    Attributes:
        shape: outermost first, the reverse of the file's order: (rows, columns), or (columns,).
        block: how its values are stored.
        offset: in bytes from the file's beginning.
        size: in bytes.
    """

    name: str
    shape: tuple[int, ...]
    block: BlockType
    offset: int
    size: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, which is a whole number of blocks."""
        return self.shape[-1] // self.block.values * self.block.layout.itemsize


@dataclass(frozen=True)
class GgufFile:
    """An open file whose head is read and checked.

    Attributes:
        metadata: value of each key: int, float, bool, str or `Array`.
        tensors: by name.
    """

    path: Path
    file: BinaryIO
    metadata: dict[str, int | float | bool | str | Array]
    tensors: dict[str, StoredTensor]

    def integer(self, key: str) -> int | None:
        """A whole number, or None where the file has no such key."""
        return self._typed(key, int, "a whole number")

    def number(self, key: str) -> float | None:
        """A finite number, or None where the file has no such key."""
        value = self._typed(key, (int, float), "a number")
        if value is not None and not math.isfinite(value):
            self.reject(f"{key} must be finite", repr(value))
        return value

    def text(self, key: str) -> str | None:
        """A string, or None where the file has no such key."""
        return self._typed(key, str, "a string")

    def flag(self, key: str) -> bool | None:
        """True or false, or None where the file has no such key."""
        return self._typed(key, bool, "true or false")

    def strings(self, key: str) -> list[str] | None:
        """An array of strings, or None where the file has no such key."""
        array = self._typed(key, Array, "an array of strings")
        if array is None:
            return None
        if array.kind != _STRING:
            self.reject(f"{key} must be an array of strings", "an array of another type")
        found, position, head = [], array.start, array.head
        try:
            for _ in range(array.count):
                (length,) = LENGTH.unpack_from(head, position)
                position += LENGTH.size + length
                found.append(head[position - length : position].decode("utf-8"))
        except UnicodeDecodeError as error:
            self.reject(f"{key}: item {len(found)} is not UTF-8", str(error))
        return found

    def numbers(self, key: str) -> np.ndarray | None:
        """An array of numbers as the file has them, (count,); None where the file has no such key."""
        array = self._typed(key, Array, "an array of numbers")
        if array is None:
            return None
        if array.kind == _STRING:
            self.reject(f"{key} must be an array of numbers", "an array of strings")
        return np.frombuffer(array.head, f"<{FORMATS[array.kind]}", array.count, array.start).copy()

    def read_rows(self, tensor: StoredTensor, first: int, last: int) -> np.ndarray:
        """Rows `first` to `last` of a tensor (one-dimensional: its only row), decoded: (last - first, columns) float32.

        Raises:
            InputError: the file has been cut short since it was opened.
        """
        size = (last - first) * tensor.row_bytes
        stored = os.pread(self.file.fileno(), size, tensor.offset + first * tensor.row_bytes)
        if len(stored) != size:
            self.reject(f"tensor {tensor.name} is cut short", f"{len(stored)} of {size} bytes")
        blocks = np.frombuffer(stored, tensor.block.layout)
        return tensor.block.decode(blocks).reshape(last - first, tensor.shape[-1])

    def reject(self, what: str, found: str, action: str = "take another file of this model") -> NoReturn:
        """Raises InputError about this file."""
        reject(self.path, what, found, action)

    def _typed(self, key, types, description):
        value = self.metadata.get(key)
        # bool is an int to Python, but not to GGUF.
        if value is not None and (not isinstance(value, types) or (isinstance(value, bool) and types is not bool)):
            self.reject(f"{key} must be {description}", f"{type(value).__name__} {str(value)[:40]}")
        return value


@contextlib.contextmanager
def open_gguf(path: str | Path) -> Iterator[GgufFile]:
    """Opens a GGUF file, checks its head and the table of its tensors, and keeps it open for reading.

    Raises:
        InputError: not a regular file, not GGUF, a version or type that is not supported, or a damaged file.
    """
    path = Path(path)
    with open_regular(path) as file:
        yield _read_head(Cursor(path, file))


def _read_head(cursor: Cursor) -> GgufFile:
    if cursor.size < 24:
        cursor.reject("not a GGUF file", f"{cursor.size} bytes", "name a .gguf file")
    cursor.require(24, "the head")
    if not cursor.head.startswith(_MAGIC):
        cursor.reject("not a GGUF file", f"it begins with {bytes(cursor.head[:4])!r}", "name a .gguf file")
    cursor.position = 4
    _check_version(cursor)
    num_tensors = cursor.count("the number of tensors", _MAX_ENTRIES, 8 + 4 + 8 + 4 + 8)
    num_keys = cursor.count("the number of keys", _MAX_ENTRIES, 8 + 4 + 1)
    metadata = {}
    for index in range(num_keys):
        key = cursor.text(f"the name of key {index}", is_name=True)
        if key in metadata:
            cursor.reject("a key is there twice", key)
        metadata[key] = _read_value(cursor, key)
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        cursor.reject("general.alignment must be a power of two", repr(alignment))
    tensors = _read_tensors(cursor, num_tensors, alignment)
    return GgufFile(cursor.path, cursor.file, metadata, tensors)


def _check_version(cursor):
    version = cursor.scalar(4, "the version")
    if version in (2, 3):
        return
    if version and not version & 0xFFFF:
        cursor.reject("big-endian GGUF is not supported", f"version {version:#x}", "take a little-endian file")
    cursor.reject("this version of GGUF is not supported", str(version), "convert the model again: version 2 or 3")


def _read_value(cursor, key):
    kind = cursor.scalar(4, f"the type of {key}")
    if kind == _STRING:
        return cursor.text(key)
    if kind in SCALARS:
        return cursor.scalar(kind, key)
    if kind != _ARRAY:
        cursor.reject(f"{key} has an unknown type", str(kind))
    kind = cursor.scalar(4, f"the type of the items of {key}")
    if kind == _ARRAY:
        cursor.reject(f"{key} is an array of arrays", "depth 2", "take a file without nested arrays")
    if kind != _STRING and kind not in SCALARS:
        cursor.reject(f"the items of {key} have an unknown type", str(kind))
    item_bytes = LENGTH.size if kind == _STRING else SCALARS[kind].size
    count = cursor.count(f"the number of items of {key}", MAX_HEAD_BYTES, item_bytes)
    start = cursor.position
    if kind == _STRING:
        cursor.skip_strings(count, key)
    else:
        cursor.require(count * item_bytes, key)
        cursor.position += count * item_bytes
    return Array(kind, count, cursor.head, start)


def _read_tensors(cursor, num_tensors, alignment):
    """Every tensor by name; offsets, which the file counts from the end of its padded head, from its beginning."""
    found = {}
    for index in range(num_tensors):
        name = cursor.text(f"the name of tensor {index}", is_name=True)
        if name in found:
            cursor.reject("a tensor is there twice", name)
        found[name] = _read_tensor(cursor, name, alignment)
    data_start = -(-cursor.position // alignment) * alignment
    tensors = {
        name: StoredTensor(name, shape, block, data_start + offset, size)
        for name, (shape, block, offset, size) in found.items()
    }
    end, before = data_start, "the head"
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            cursor.reject(f"tensor {tensor.name} overlaps {before}", f"offset {tensor.offset}, free from {end}")
        end, before = tensor.offset + tensor.size, tensor.name
    if end > cursor.size:
        cursor.reject(f"tensor {before} ends behind the end of the file", f"{end} of {cursor.size} bytes")
    return tensors


def _read_tensor(cursor, name, alignment):
    """Shape, block type, offset from the beginning of the data, and size in bytes."""
    num_dimensions = cursor.scalar(4, f"the dimensions of tensor {name}")
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        cursor.reject(f"tensor {name} has an impossible number of dimensions", str(num_dimensions))
    shape = tuple(reversed([cursor.scalar(10, f"the shape of tensor {name}") for _ in range(num_dimensions)]))
    kind = cursor.scalar(4, f"the type of tensor {name}")
    offset = cursor.scalar(10, f"the offset of tensor {name}")
    block = BLOCK_TYPES.get(kind)
    if block is None:
        supported = ", ".join(sorted(block.name for block in BLOCK_TYPES.values()))
        found = OTHER_TYPES.get(kind, f"number {kind}")
        cursor.reject(f"the type of tensor {name} is not supported", found, f"take a file with {supported}")
    if not all(shape) or shape[-1] % block.values:
        cursor.reject(f"tensor {name} has an impossible shape", f"{shape}, blocks of {block.values}")
    # Python's whole numbers do not overflow: a product beyond any file is simply too large for this one.
    size = math.prod(shape) // block.values * block.layout.itemsize
    if offset % alignment or offset + size > cursor.size:
        cursor.reject(
            f"tensor {name} does not lie in the file",
            f"offset {offset} (alignment {alignment}), {size} bytes; the file has {cursor.size}",
        )
    return shape, block, offset, size
