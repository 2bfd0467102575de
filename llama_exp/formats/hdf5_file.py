"""HDF5 files that came from anywhere, as Keras writes them: tensors by path, checked before anything is read.

HDF5 can do much that weights do not need and that would read other files, load code or fill the memory. All of it is
refused: links, values in another file, foreign filters, values that are not there, tiny files that unpack to huge ones.
The library never opens a file by name; it reads through the handle that was opened here. Imports no framework.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import h5py
import numpy as np

from llama_exp.errors import InputError, Problem
from llama_exp.files.json_file import open_regular
from llama_exp.formats.checkpoint import Tensor
from llama_exp.formats.plain_arrays import BFLOAT16, aligned_empty, is_finite, read_array

# Depth and number of groups of a real file are far below; hard links can make a small file endless.
MAX_DEPTH = 8
MAX_OBJECTS = 100_000
# deflate, shuffle, fletcher32, lzf. Others would make HDF5 load a plug-in from the machine.
BUILT_IN_FILTERS = frozenset({1, 2, 3, 32000})
# Trained weights do not pack to half. A file that unpacks to far more is made to fill the memory.
MAX_UNPACKING = 16
FREE_UNPACKING_BYTES = 64 << 20
PACKED_BLOCK_BYTES = 16 << 20


class Stored(NamedTuple):
    """A tensor of an open file: its header, the handle that HDF5 reads through, and file and path for messages."""

    dataset: h5py.Dataset
    handle: BinaryIO
    origin: str


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[dict[str, Stored]]:
    """All tensors of a file by their path in it, with the file open; their headers are not checked yet.

    Raises:
        InputError: no such file, not HDF5, broken, or with links.
    """
    with open_regular(path) as handle:
        with broken_file(str(path)):
            file = h5py.File(handle, "r")
        try:
            with broken_file(str(path)):
                stored = {
                    name: Stored(dataset, handle, f"{path}: {name}") for name, dataset in _walk(path, file, "", [0])
                }
            yield stored
        finally:
            file.close()


def describe_misfit(item: Stored, shape: tuple[int, ...], dtype: np.dtype | None = None) -> str | None:
    """Why a tensor cannot be the one of `shape`, or None; looks at its header only.

    Args:
        item: a tensor of an open file.
        shape: what it must have.
        dtype: what it must have; None: any floating-point type.
    """
    with broken_file(item.origin):
        return _unfit(item.dataset, shape, dtype)


def packed_too_tightly(tensors: Mapping[str, Stored]) -> str | None:
    """What is wrong if the tensors' values take far more memory than their files, or None."""
    handles = {id(item.handle): item.handle for item in tensors.values()}
    num_bytes = sum(os.fstat(handle.fileno()).st_size for handle in handles.values())
    packed = sum(item.dataset.nbytes for item in tensors.values() if item.dataset.chunks is not None)
    if packed <= max(FREE_UNPACKING_BYTES, MAX_UNPACKING * num_bytes):
        return None
    return f"{num_bytes} bytes of files unpack to {packed}"


def make_tensor(item: Stored, shape: tuple[int, ...]) -> Tensor:
    """A checked tensor of an open file, in the shape of our variable."""
    dataset, origin = item.dataset, item.origin
    with broken_file(origin):
        dtype = _dtype(dataset)
        # Values in one piece are read around HDF5, through the same handle.
        offset = dataset.id.get_offset() if dataset.chunks is None and not dataset.file.userblock_size else None

    def read(out_dtype: np.dtype | None = None) -> np.ndarray:
        if offset is not None:
            return read_array(item.handle, offset, shape, dtype, out_dtype, origin=origin)
        return _read_blocks(dataset, dtype, out_dtype, origin).reshape(shape)

    return Tensor(shape, dtype.newbyteorder("="), origin, read)


@contextlib.contextmanager
def create_file(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """An HDF5 file to be written, and a function that raises OSError if the disk has refused something so far.

    The library keeps what it could not write and tries again whenever an object is closed, until the process dies of
    it. So it is told that all went well, and the error is raised here.
    """
    with open(path, "w+b", buffering=0) as raw_file:
        sink = _Sink(raw_file)
        try:
            with h5py.File(sink, "w") as file:
                yield file, sink.require_written
        finally:
            sink.require_written()


class _Sink:
    """What HDF5 writes to: a file whose first error is kept instead of raised."""

    def __init__(self, file: io.FileIO):
        self._file = file
        self._error: OSError | None = None
        self.seek, self.tell, self.read, self.readinto = file.seek, file.tell, file.read, file.readinto

    def require_written(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, data) -> int:
        data, done = memoryview(data).cast("B"), 0
        while done < len(data) and self._error is None:
            try:
                done += self._file.write(data[done:])
            except OSError as error:
                self._error = error
        return len(data)

    def truncate(self, size: int) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size

    def flush(self) -> None:
        """Nothing is held back."""


@contextlib.contextmanager
def broken_file(where: str) -> Iterator[None]:
    """Turns the errors of h5py about a file into InputError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, NotImplementedError) as error:
        found = " ".join(str(error).split())[:200]
        raise InputError(
            Problem("the weight file cannot be read", where, found, "download or export the preset again")
        ) from error


def _walk(file: Path, group: h5py.Group, prefix: str, num_visited: list[int]) -> Iterator[tuple[str, h5py.Dataset]]:
    for name in group:
        path = f"{prefix}{name}"
        where = f"{file}: {path[:80]}"
        num_visited[0] += 1
        if path.count("/") > MAX_DEPTH or num_visited[0] > MAX_OBJECTS:
            raise InputError.about(where, "the file is not laid out like weights", "too many groups, or in a circle")
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise InputError.about(where, "links out of a weight file are refused", type(link).__name__)
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _walk(file, item, f"{path}/", num_visited)
        elif isinstance(item, h5py.Dataset):
            yield path, item
        else:
            raise InputError.about(where, "the file is not laid out like weights", type(item).__name__)


def _unfit(dataset: h5py.Dataset, shape: tuple[int, ...], dtype: np.dtype | None) -> str | None:
    if dataset.shape != shape:
        return f"shape {dataset.shape} instead of {shape}"
    is_float = _is_bfloat16(dataset) or (dataset.dtype.kind == "f" and dataset.dtype.itemsize in (2, 4, 8))
    if dtype is None and not is_float:
        return f"type {dataset.dtype} instead of a float type"
    if dtype is not None and dataset.dtype != dtype:
        return f"type {dataset.dtype} instead of {dtype}"
    if dataset.external or dataset.is_virtual:
        return "its values lie in another file"
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
    if not filters <= BUILT_IN_FILTERS:
        return f"packed with HDF5 filters {sorted(filters - BUILT_IN_FILTERS)}"
    if dataset.chunks is None:
        complete = dataset.id.get_storage_size() == dataset.nbytes
    else:
        if any(chunk > size for size, chunk in zip(shape, dataset.chunks, strict=True)):
            return f"chunks {dataset.chunks} larger than itself"
        num_chunks = math.prod(-(-size // chunk) for size, chunk in zip(shape, dataset.chunks, strict=True))
        complete = dataset.id.get_num_chunks() == num_chunks
    # HDF5 would fill the gap with zeros and say nothing.
    return None if complete else "the file does not hold all of its values"


def _read_blocks(dataset: h5py.Dataset, dtype: np.dtype, out_dtype, origin: str) -> np.ndarray:
    """A tensor in chunks, or one so small that it lies in its header: through HDF5, a few rows of chunks at a time."""
    out = aligned_empty(dataset.shape, dtype.newbyteorder("=") if out_dtype is None else out_dtype)
    row_bytes = math.prod(dataset.shape[1:]) * dtype.itemsize
    chunk_rows = dataset.chunks[0] if dataset.chunks else 1
    rows = max(1, PACKED_BLOCK_BYTES // max(1, row_bytes * chunk_rows)) * chunk_rows
    for first in range(0, len(out), rows):
        with broken_file(origin):
            block = dataset[first : first + rows].view(dtype)
        with np.errstate(over="ignore"):  # what overflows is refused below, by name
            out[first : first + rows] = block
        if not is_finite(out[first : first + rows]):
            raise InputError.about(origin, "the tensor is not finite", f"NaN or infinity as {out.dtype}")
    return out


def _is_bfloat16(dataset: h5py.Dataset) -> bool:
    return dataset.dtype == np.dtype("V2") and dataset.attrs.get("dtype") == "bfloat16"


def _dtype(dataset: h5py.Dataset) -> np.dtype:
    return BFLOAT16 if _is_bfloat16(dataset) else dataset.dtype
