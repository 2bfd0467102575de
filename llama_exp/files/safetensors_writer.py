"""Named tensors into a safetensors file as a stream: no second copy of the weights, one tensor in memory at a time.

Format (https://huggingface.co/docs/safetensors): 8 bytes little-endian header length, a JSON header
{name: {dtype, shape, data_offsets}, "__metadata__": {text: text}}, the tensors' bytes in that order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from llama_exp.files.writing import write_blocks

FLOAT_NAMES = {
    np.dtype(np.float64): "F64",
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
}
DTYPE_NAMES = FLOAT_NAMES | {
    np.dtype(np.bool_): "BOOL",
    np.dtype(np.uint8): "U8",
    np.dtype(np.int8): "I8",
    np.dtype(np.uint16): "U16",
    np.dtype(np.int16): "I16",
    np.dtype(np.uint32): "U32",
    np.dtype(np.int32): "I32",
    np.dtype(np.uint64): "U64",
    np.dtype(np.int64): "I64",
}
LENGTH_BYTES = 8
METADATA = "__metadata__"
BLOCK_BYTES = 16 << 20
# Turning a matrix in tiles of this size, which the cache holds, is seven times as fast as turning whole rows.
TILE_ROWS, TILE_COLUMNS = 256, 64


class Writable(Protocol):
    """A tensor that is read when its turn comes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As it will be in the file."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """As it will be in the file."""
        ...

    @property
    def read(self) -> Any:
        """`read(None)` gives the values, in any memory layout."""
        ...


def write_safetensors(
    path: Path, tensors: Mapping[str, Writable], metadata: Mapping[str, str] | None = None, hasher: Any = None
) -> int:
    """Writes a new file, through to the disk: the header, then one tensor at a time.

    Peak memory is what one `read` needs, and a few MiB.

    Args:
        path: of a file that does not exist.
        tensors: by name.
        metadata: goes into the header; None: there is none.
        hasher: of `hashlib`, is fed the file's bytes; None: none.

    Returns:
        The file's size in bytes.

    Raises:
        OSError: it cannot be written, or exists.
        ValueError: a type that the format does not have, or a tensor that reads as another than it says.
    """
    # As the format's own library does: wide types first, so that every tensor is aligned to its type.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))
    return write_blocks(path, _blocks(_header(ordered, metadata), ordered), hasher=hasher)


def _header(tensors: Mapping[str, Writable], metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, Any] = {} if metadata is None else {METADATA: dict(metadata)}
    offset = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPE_NAMES:
            raise ValueError(f"{name} is {tensor.dtype}. Choose one of {', '.join(map(str, DTYPE_NAMES))}.")
        end = offset + math.prod(tensor.shape) * tensor.dtype.itemsize
        entry = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        header[name], offset = entry, end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _blocks(header: bytes, tensors: Mapping[str, Writable]) -> Iterator[bytes | memoryview]:
    yield header
    for name, tensor in tensors.items():
        yield from _tensor_blocks(name, tensor)  # its values are gone before the next one is read


def _tensor_blocks(name: str, tensor: Writable) -> Iterator[memoryview]:
    values = tensor.read(None)
    if values.shape != tuple(tensor.shape) or values.dtype != tensor.dtype:
        raise ValueError(f"{name} reads as {values.dtype}{values.shape}, not {tensor.dtype}{tensor.shape}.")
    if values.ndim == 2 and not values.flags.c_contiguous:
        yield from _turned_blocks(values)
        return
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    for start in range(0, len(data), BLOCK_BYTES):
        yield data[start : start + BLOCK_BYTES]


def _turned_blocks(values: np.ndarray) -> Iterator[memoryview]:
    """A transposed matrix in C order, block by block, so that it needs no copy of the whole; one memory for all."""
    bits = values.view(f"u{values.dtype.itemsize}")  # NumPy copies bfloat16 at half the speed
    scratch = np.empty((min(TILE_ROWS, len(bits)), bits.shape[1]), bits.dtype)
    for first in range(0, len(bits), TILE_ROWS):
        rows = bits[first : first + TILE_ROWS]
        block = scratch[: len(rows)]
        for column in range(0, rows.shape[1], TILE_COLUMNS):
            block[:, column : column + TILE_COLUMNS] = rows[:, column : column + TILE_COLUMNS]
        yield block.reshape(-1).view(np.uint8).data
