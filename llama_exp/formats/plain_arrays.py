"""Arrays that lie in a file as plain bytes: read, cast, turned and checked in one pass through the cache.

A large tensor is limited by memory, not by arithmetic: each further pass over it costs as much as reading it. So blocks
of a size that the cache holds go through all steps, two threads take half of the array each, and the result is the
only large allocation. It is aligned to 64 bytes, which lets TensorFlow and JAX adopt it without a copy.

Shape letters: R rows of the file, C columns.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import ml_dtypes
import numpy as np

from llama_exp.errors import InputError

ALIGNMENT_BYTES = 64
BLOCK_BYTES = 1 << 20
# Turned rows are written in runs of this many elements. As many lines of the source still fit into the first cache.
ROWS_PER_BLOCK = 512
THREADED_BYTES = 4 << 20  # below, starting a thread costs more than it saves
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# Exponent and fraction of the two-byte types; infinity has the exponent's bits alone, NaN more.
_MAGNITUDE = np.uint16(0x7FFF)
_INFINITY = {np.dtype(np.float16): 0x7C00, BFLOAT16: 0x7F80}


def aligned_empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """A new C-contiguous array without values whose first element is aligned to 64 bytes."""
    dtype = np.dtype(dtype)
    num_bytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(num_bytes + ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_BYTES
    return memory[start : start + num_bytes].view(dtype).reshape(shape)


def is_finite(array: np.ndarray) -> bool:
    """Whether no element is NaN or infinite; integers always are finite."""
    infinity = _INFINITY.get(array.dtype)
    if infinity is not None and array.size:  # NumPy's own test is a tenth as fast for these types
        return int((array.view(np.uint16) & _MAGNITUDE).max()) < infinity
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def read_array(
    file: BinaryIO,
    offset: int,
    shape: tuple[int, ...],
    dtype,
    out_dtype=None,
    transpose: bool = False,
    origin: str = "",
) -> np.ndarray:
    """A tensor that lies in `file` in C order.

    Args:
        file: open for reading; its position neither matters nor moves.
        offset: of the first byte.
        shape: in the file; (R, C) if it is transposed.
        dtype: in the file; either byte order.
        out_dtype: of the result; None: as in the file, in the machine's byte order.
        transpose: the result is (C, R).
        origin: file and name of the tensor, for messages.

    Returns:
        A new C-contiguous array aligned to 64 bytes.

    Raises:
        InputError: the file is too short, or a floating-point value is not finite (after the cast, if there is one).
    """
    dtype = np.dtype(dtype)
    out_dtype = dtype.newbyteorder("=") if out_dtype is None else np.dtype(out_dtype)
    num_bytes = math.prod(shape) * dtype.itemsize
    size = os.fstat(file.fileno()).st_size
    if offset < 0 or offset + num_bytes > size:
        raise InputError.about(
            origin, "the file is too short", f"{size} bytes, the tensor ends at {offset + num_bytes}"
        )
    out = aligned_empty(shape[::-1] if transpose else shape, out_dtype)
    copy = _copy_turned if transpose else _copy_straight
    length = shape[0] if transpose else math.prod(shape)
    if num_bytes < THREADED_BYTES:
        copy(file.fileno(), offset, dtype, out, 0, length, origin)
        return out
    middle = -(-length // (2 * ROWS_PER_BLOCK)) * ROWS_PER_BLOCK
    with ThreadPoolExecutor(2) as pool:
        halves = [
            pool.submit(copy, file.fileno(), offset, dtype, out, start, stop, origin)
            for start, stop in ((0, middle), (middle, length))
        ]
        for half in halves:
            half.result()
    return out


def _copy_straight(descriptor, offset, dtype, out, start, stop, origin):
    """Elements `start` to `stop` of the flat array."""
    flat = out.reshape(-1)
    per_block = BLOCK_BYTES // dtype.itemsize
    scratch = None if flat.dtype == dtype else np.empty(min(per_block, stop - start), dtype)
    for first in range(start, stop, per_block):
        block = flat[first : min(first + per_block, stop)]
        target = block if scratch is None else scratch[: block.size]
        _fill(descriptor, offset + first * dtype.itemsize, [target.view(np.uint8)], origin)
        if scratch is not None:
            _cast(target, block)
        _require_finite(block, dtype, origin)


def _copy_turned(descriptor, offset, dtype, out, start, stop, origin):
    """Rows `start` to `stop` of the file, which are columns of `out`."""
    columns = out.shape[0]
    row_bytes = columns * dtype.itemsize
    # Rows whose distance is a power of two would all fall into the same few lines of the cache.
    scratch = np.empty((ROWS_PER_BLOCK, row_bytes + ALIGNMENT_BYTES), np.uint8)[:, :row_bytes]
    for first in range(start, stop, ROWS_PER_BLOCK):
        rows = scratch[: min(ROWS_PER_BLOCK, stop - first)]
        _fill(descriptor, offset + first * row_bytes, list(rows), origin)
        block = rows.view(dtype)
        if dtype != out.dtype:
            cast = np.empty((len(block), columns + ALIGNMENT_BYTES // out.dtype.itemsize), out.dtype)[:, :columns]
            _cast(block, cast)
            block = cast
        _require_finite(block, dtype, origin)
        plain = np.dtype(f"u{out.itemsize}")  # NumPy moves numbers faster than types it does not know
        out.view(plain)[:, first : first + len(block)] = block.view(plain).T


def _fill(descriptor: int, offset: int, parts: list[np.ndarray], origin: str) -> None:
    """Reads consecutive bytes of the file into `parts`, contiguous arrays of bytes."""
    wanted = sum(part.nbytes for part in parts)
    try:
        if os.preadv(descriptor, [part.data for part in parts], offset) == wanted:
            return
        for part in parts:  # a file system may give less than asked for, and then the rest
            done = 0
            while done < part.nbytes:
                count = os.preadv(descriptor, [part[done:].data], offset + done)
                if not count:
                    raise InputError.about(origin, "the file ends within the tensor", f"at byte {offset + done}")
                done += count
            offset += part.nbytes
    except OSError as error:
        raise InputError.about(origin, "the file cannot be read", error.strerror or str(error)) from error


def _cast(source: np.ndarray, target: np.ndarray) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused afterwards, by name
        target[...] = source


def _require_finite(block: np.ndarray, dtype: np.dtype, origin: str) -> None:
    if not is_finite(block):
        found = "NaN or infinity" + (f" after {dtype} became {block.dtype}" if block.dtype != dtype else "")
        raise InputError.about(origin, "the tensor is not finite", found)
