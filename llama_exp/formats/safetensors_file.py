"""The safetensors format: tensors located in a file that may come from anywhere, and written one at a time.

Format (https://huggingface.co/docs/safetensors): 8 bytes little-endian header length, a JSON header
{name: {dtype, shape, data_offsets}, "__metadata__": {text: text}}, then the tensors' bytes, which fill the rest of the
file without overlap or gap. Only floating-point types are known here; models of other types are quantized ones.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from llama_exp.errors import InputError
from llama_exp.files.json_file import open_regular, parse_json
from llama_exp.files.safetensors_writer import FLOAT_NAMES, LENGTH_BYTES, METADATA, write_safetensors
from llama_exp.formats.checkpoint import Tensor
from llama_exp.formats.plain_arrays import read_array

DTYPES = {name: dtype for dtype, name in FLOAT_NAMES.items()}
# The format allows 100 MB. The largest Llama needs 0.2 MB, and JSON grows twentyfold in memory.
MAX_HEADER_BYTES = 16 << 20
MAX_DIMENSIONS = 8
ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
NAMES_SHOWN = 5
CONVERT = "convert it to safetensors on a machine that you trust it with, or choose another"
LOOKS_LIKE = {
    b"PK\x03\x04": (
        "a PyTorch zip",
        "convert it to safetensors on a machine that you trust it with, or choose another",
    ),
    b"\x80": ("a Python pickle", CONVERT),
    b"GGUF": ("a GGUF file", "give it the ending .gguf and its own path as the model"),
    b"\x89HDF": ("an HDF5 file", "give the folder of a KerasHub preset instead"),
    b"version https://": ("a pointer of Git LFS", "run `git lfs pull` where it came from"),
    b"<": ("a web page", "download the file itself, perhaps after logging in"),
}


class StoredTensor(NamedTuple):
    """Where a tensor lies in an open file.

    Attributes:
        file: the handle through which the header was read.
        offset: of the first byte.
        shape: in the file.
        dtype: in the file.
        origin: file and name, for messages.
    """

    file: BinaryIO
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    origin: str

    def read(self, dtype=None, transpose: bool = False) -> np.ndarray:
        """The values as a new array; see `raw.read_array`."""
        return read_array(self.file, self.offset, self.shape, self.dtype, dtype, transpose, self.origin)


class SafetensorsFile(NamedTuple):
    """What the header of an open file says: the tensors by name, and its metadata."""

    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[SafetensorsFile]:
    """Locates every tensor of a file, which is open as long as the context; reads none.

    Raises:
        InputError: the file cannot be read, is another format (named), is truncated, or its header is impossible.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        header_bytes = _read_header(path, file, size)
        header = parse_json(path, header_bytes)
        metadata = header.pop(METADATA, {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise InputError.about(path, f"{METADATA} must be texts by name", repr(metadata)[:80])
        data_start = LENGTH_BYTES + len(header_bytes)
        yield SafetensorsFile(_locate(path, file, header, data_start, size - data_start), metadata)


def write_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a new file, through to the disk: the header, then one tensor at a time.

    Peak memory is what one `read` needs, and a few MiB.

    Args:
        path: of a file that does not exist.
        tensors: by name, floating-point, `shape` and `dtype` as they will be in the file.
        metadata: goes into the header.

    Raises:
        OSError: it cannot be written, or exists.
        ValueError: a type that the format does not have here, or a tensor that reads as another than it says.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOAT_NAMES:
            raise ValueError(f"{name} is {tensor.dtype}. Choose one of {', '.join(map(str, FLOAT_NAMES))}.")
    write_safetensors(path, tensors, metadata)


def _read_header(path: Path, file: BinaryIO, size: int) -> bytes:
    """The bytes of the header; nothing is allocated before its length is known to be possible."""
    start = _read_exactly(path, file, min(size, LENGTH_BYTES + 9))
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if start[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
        for magic, (name, action) in LOOKS_LIKE.items():
            if start.startswith(magic):
                raise InputError.about(path, "not a safetensors file", f"looks like {name}", action)
    if len(start) <= LENGTH_BYTES:
        raise InputError.about(path, "not a safetensors file, or truncated", f"{size} bytes")
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
        found = f"a header of {length} bytes in a file of {size} bytes, limit {MAX_HEADER_BYTES}"
        raise InputError.about(path, "not a safetensors file, or truncated", found)
    if start[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
        raise InputError.about(path, "not a safetensors file", "the header is not a JSON object")
    file.seek(LENGTH_BYTES)
    return _read_exactly(path, file, length)


def _read_exactly(path: Path, file: BinaryIO, count: int) -> bytes:
    data = bytearray()
    try:
        while len(data) < count and (block := file.read(count - len(data))):
            data += block
    except OSError as error:
        raise InputError.about(path, "the file cannot be read", error.strerror or str(error)) from error
    if len(data) < count:
        raise InputError.about(path, "the file became shorter while it was read", f"{len(data)} of {count} bytes")
    return bytes(data)


def _locate(path: Path, file: BinaryIO, header: dict, data_start: int, data_bytes: int) -> dict[str, StoredTensor]:
    foreign = [f"{_shown(name)} is {_type(entry)}" for name, entry in header.items() if _type(entry) not in DTYPES]
    if foreign:
        found = "; ".join(foreign[:NAMES_SHOWN]) + (" ..." if foreign[NAMES_SHOWN:] else "")
        action = f"choose a checkpoint that is not quantized; known types: {', '.join(DTYPES)}"
        raise InputError.about(path, f"{len(foreign)} tensors have types that are not supported", found, action)
    tensors, spans = {}, []
    for name, entry in header.items():
        origin = f"{path}: {_shown(name)}"
        dtype = DTYPES[entry["dtype"]]
        shape, start, end = _checked_entry(origin, entry, dtype, data_bytes)
        tensors[name] = StoredTensor(file, data_start + start, shape, dtype, origin)
        spans.append((start, end, origin))
    filled = 0
    for start, end, origin in sorted(spans):
        if start != filled:
            what = "tensors overlap" if start < filled else "the file has bytes that belong to no tensor"
            raise InputError.about(origin, what, f"it starts at byte {start}, the one before ends at {filled}")
        filled = end
    if filled != data_bytes:
        raise InputError.about(path, "the file has bytes after its last tensor", f"{data_bytes - filled} bytes")
    return tensors


def _checked_entry(
    origin: str, entry: dict[str, Any], dtype: np.dtype, data_bytes: int
) -> tuple[tuple[int, ...], int, int]:
    """Shape, first byte and end of a tensor, which are known to fit each other and the file."""
    shape, offsets = entry.get("shape", ()), entry.get("data_offsets", ())
    if set(entry) != ENTRY_KEYS or not _is_counts(shape) or not _is_counts(offsets) or len(offsets) != 2:
        raise InputError.about(origin, "a tensor's entry is not one of the format", repr(entry)[:120])
    if len(shape) > MAX_DIMENSIONS:
        raise InputError.about(origin, "a tensor has too many dimensions", f"{len(shape)}, limit {MAX_DIMENSIONS}")
    start, end = offsets
    if not start <= end <= data_bytes:
        raise InputError.about(origin, "the file is truncated", f"bytes {start} to {end} of {data_bytes}")
    if math.prod(shape) * dtype.itemsize != end - start:
        found = f"{dtype} of shape {shape} in {end - start} bytes"
        raise InputError.about(origin, "a tensor's shape does not fit its bytes", found[:160])
    return tuple(shape), start, end


def _type(entry) -> str:
    return _shown(str(entry.get("dtype"))) if isinstance(entry, dict) else type(entry).__name__


def _shown(text: str) -> str:
    """On one line, of limited length, without control characters."""
    return repr(text)[1:-1][:100]


def _is_counts(values) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
