"""A matrix on the disk, written and read by plain calls, row by row.

A memory map would be shorter, and deadly: on a full disk, and when the file is cut off under its reader, the kernel
ends the process with SIGBUS. Here both are errors. The file is NumPy's own (`.npy`, version 1.0,
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

Shape letters: R rows, C columns, B rows of one read.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from llama_exp.errors import Problem, StorageError
from llama_exp.files.writing import FILE_MODE, OWN


@contextlib.contextmanager
def writing_rows(path: Path, dtype: np.dtype, shape: tuple[int, int]) -> Iterator[Callable[[np.ndarray], None]]:
    """A new file of R rows, as a function that appends some of them, (B, C); all R must come.

    Raises:
        OSError: it cannot be written, or exists.
        ValueError: other rows came than `shape` says.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    descriptor, num_rows = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OWN, FILE_MODE), 0
    with open(descriptor, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)

        def append(rows: np.ndarray) -> None:
            nonlocal num_rows
            if rows.shape[1:] != shape[1:] or rows.dtype != dtype:
                raise ValueError(f"{path.name} takes {dtype} rows of {shape[1]}, not {rows.dtype}{rows.shape}.")
            file.write(np.ascontiguousarray(rows).data)
            num_rows += len(rows)

        yield append
    if num_rows != shape[0]:
        raise ValueError(f"{path.name} is to have {shape[0]} rows, {num_rows} came.")


class RowFile:
    """Reads rows of such a file; it stays open as long as the object lives.

    Args:
        path: of the file.

    Attributes:
        shape: (R, C). dtype: of the elements.

    Raises:
        StorageError: it cannot be opened, or is no such file.
    """

    def __init__(self, path: Path):
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | OWN)
            weakref.finalize(self, os.close, self._descriptor)
            with open(self._descriptor, "rb", closefd=False) as file:
                np.lib.format.read_magic(file)
                self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(file)
                self._start = file.tell()
        except (OSError, ValueError) as error:
            raise self._damaged(str(error)) from error

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The rows at `indices` (B,), which count from 0; a new array (B, C).

        Raises:
            StorageError: they cannot be read, or the file ends before them.
        """
        rows = np.empty((len(indices), *self.shape[1:]), self.dtype)
        size = self.dtype.itemsize * self.shape[1]
        for row, index in zip(rows, indices, strict=True):
            try:
                num_bytes = os.preadv(self._descriptor, [row.data.cast("B")], self._start + int(index) * size)
            except OSError as error:
                raise self._damaged(error.strerror or str(error)) from error
            if num_bytes != size:
                raise self._damaged(f"row {index} is cut off after {num_bytes} of {size} bytes")
        return rows

    def _damaged(self, found: str) -> StorageError:
        action = "check the disk, then run the same command with resume=auto: what is damaged is built again"
        return StorageError(Problem("the prepared data cannot be read any more", str(self._path), found, action))
