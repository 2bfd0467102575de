"""Rows on the disk: NumPy reads what is written; a file that was cut off is an error, not the process' end."""

import errno
import os
import resource

import numpy as np
import pytest

from llama_exp.errors import StorageError
from llama_exp.files.row_file import RowFile, writing_rows

pytestmark = pytest.mark.neutral

MATRIX = np.arange(35, dtype=np.uint16).reshape(7, 5) * 1000


def written(path, matrix=MATRIX, at_once=3):
    with writing_rows(path, matrix.dtype, matrix.shape) as append:
        for first in range(0, len(matrix), at_once):
            append(matrix[first : first + at_once])
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int64])
def test_it_is_numpy_s_own_file(tmp_path, dtype):
    matrix = MATRIX.astype(dtype)
    path = written(tmp_path / "rows.npy", matrix)
    np.save(tmp_path / "numpy.npy", matrix)
    assert path.read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    rows = RowFile(tmp_path / "numpy.npy")
    assert (len(rows), rows.shape, rows.dtype) == (7, (7, 5), matrix.dtype)
    indices = np.array([6, 0, 0, 3])
    np.testing.assert_array_equal(rows.read(indices), np.load(path)[indices])
    assert rows.read(indices[:0]).shape == (0, 5)


def test_the_rows_that_come_are_those_that_were_said(tmp_path):
    for name, rows in (("few", MATRIX[:6]), ("wide", MATRIX.reshape(5, 7)), ("other", MATRIX.astype(np.int32))):
        with pytest.raises(ValueError, match="rows"), writing_rows(tmp_path / name, MATRIX.dtype, (7, 5)) as append:
            append(rows)


@pytest.mark.parametrize("size", [0, 60, 130, 190])
def test_a_file_that_was_cut_off_is_told(tmp_path, size):
    path = written(tmp_path / "rows.npy")
    rows = RowFile(path)
    os.truncate(path, size)
    with pytest.raises(StorageError, match=r"rows\.npy(?s:.*)cut off after(?s:.*)resume=auto"):
        rows.read(np.arange(7))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01", b"something else, long enough for a header of that kind"])
def test_what_is_no_such_file_is_told(tmp_path, content):
    (tmp_path / "rows.npy").write_bytes(content)
    with pytest.raises(StorageError, match="cannot be read any more"):
        RowFile(tmp_path / "rows.npy")
    with pytest.raises(StorageError, match="No such file"):
        RowFile(tmp_path / "missing.npy")


def test_a_full_disk_is_an_error(tmp_path):
    """The limit stands in for the disk; above it the system also sends a signal, which Python ignores."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError) as raised:
            written(tmp_path / "rows.npy", np.zeros((100, 1000), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG


def test_it_closes_with_the_object(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    rows = RowFile(written(tmp_path / "rows.npy"))
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del rows
    assert len(os.listdir("/proc/self/fd")) == before
