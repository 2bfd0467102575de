"""Named arrays in a safetensors file, written as a stream: no second copy of the weights, hashed on the way.

Format (https://huggingface.co/docs/safetensors): 8 bytes little-endian header length, a JSON header
{name: {dtype, shape, data_offsets}}, the arrays' bytes in that order.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}
BLOCK_BYTES = 16 * 2**20


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> dict:
    """Writes a new file, through to the disk.

    Returns:
        {"bytes": size, "sha256": hex digest}, for a manifest.

    Raises:
        OSError: it cannot be written, or exists.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in sorted(arrays.items())}
    return write_blocks(path, _blocks(arrays))


def write_blocks(path: Path, blocks) -> dict:
    """Writes byte blocks to a new file, through to the disk; returns its size and digest."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        for block in blocks:
            digest.update(block)
            size += len(block)
            while block:
                block = block[os.write(descriptor, block) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"bytes": size, "sha256": digest.hexdigest()}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file whose digest was verified."""
    from safetensors.numpy import load_file

    return load_file(path)


def file_digest(path: Path) -> dict:
    """Size and sha256 of a file, as `write_tensors` returned them."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def array_bytes(array: np.ndarray) -> memoryview:
    """The array's memory, row by row, without a copy where it already lies so."""
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _blocks(arrays: Mapping[str, np.ndarray]):
    header, offset = {}, 0
    for name, array in arrays.items():
        end = offset + array.nbytes
        header[name] = {"dtype": DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # arrays start aligned
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
        data = array_bytes(array)
        for start in range(0, len(data), BLOCK_BYTES):
            yield data[start : start + BLOCK_BYTES]
