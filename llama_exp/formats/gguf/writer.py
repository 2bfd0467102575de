"""GGUF files, version 3, as a stream: the head, then one tensor at a time.

    magic, version, counts | key, type, value ... | name, dimensions, type, offset ... | padding | tensors

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. What a tensor will take is known before it is read,
so that nothing is held or written twice, whatever the size of the model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.files.writing import write_blocks
from llama_exp.formats.gguf.blocks import BLOCK_TYPES
from llama_exp.formats.gguf.encoding import KINDS

ALIGNMENT = 32
_MAGIC, _VERSION = b"GGUF", 3
_STRING, _ARRAY = 8, 9
# GGUF's numbers of the types of Python's and NumPy's scalars that are written here.
_SCALARS = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}
_ARRAYS = {np.dtype(np.int32): 5, np.dtype(np.float32): 6}

Value = bool | int | float | str | list[str] | np.ndarray


@dataclass(frozen=True)
class Outgoing:
    """A tensor that is read when its turn comes.

    Attributes:
        shape: outermost first: (rows, columns), or (columns,).
        type: name of its GGUF type, in `encoding.KINDS`.
        blocks: called once; yields its bytes, `size` in all.
    """

    shape: tuple[int, ...]
    type: str
    blocks: Callable[[], Iterator[Any]]

    @property
    def size(self) -> int:
        """In bytes."""
        block = BLOCK_TYPES[KINDS[self.type]]
        return int(np.prod(self.shape, dtype=np.int64)) // block.values * block.layout.itemsize


def write_gguf(path: Path, metadata: Mapping[str, Value], tensors: Mapping[str, Outgoing], hasher: Any) -> int:
    """Writes a new file, through to the disk.

    Args:
        path: of a file that does not exist.
        metadata: by key. An int becomes uint32, a float float32, arrays keep their type (int32, float32, strings).
        tensors: by name, in the order in which they are read and written.
        hasher: of `hashlib`, is fed the file's bytes.

    Returns:
        The file's size in bytes.

    Raises:
        InputError: a tensor cannot be read, or does not fit its type.
        OSError: the file cannot be written, or exists.
    """
    return write_blocks(path, _content(metadata, tensors), hasher=hasher)


def _content(metadata: Mapping[str, Value], tensors: Mapping[str, Outgoing]) -> Iterator[Any]:
    head = _MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))
    head += b"".join(_text(key) + _value(value) for key, value in metadata.items())
    offset = 0
    for name, tensor in tensors.items():
        dimensions = tensor.shape[::-1]
        head += _text(name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        head += struct.pack("<IQ", KINDS[tensor.type], offset)
        offset += tensor.size + _padding(tensor.size)
    yield head + bytes(_padding(len(head)))
    for tensor in tensors.values():
        yield from tensor.blocks()
        yield bytes(_padding(tensor.size))


def _padding(size: int) -> int:
    return -size % ALIGNMENT


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Value) -> bytes:
    """Type and content."""
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_text, value))
    if isinstance(value, np.ndarray):
        return struct.pack("<IIQ", _ARRAY, _ARRAYS[value.dtype], value.size) + value.tobytes()
    kind, layout = _SCALARS[type(value)]
    return struct.pack(f"<I{layout}", kind, value)
