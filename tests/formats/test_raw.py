"""Arrays from plain bytes against NumPy's own casts and transposes, of every size around a block."""

import ml_dtypes
import numpy as np
import pytest

from llama_exp.errors import InputError
from llama_exp.formats import plain_arrays as raw
from llama_exp.formats.plain_arrays import ALIGNMENT_BYTES, aligned_empty, is_finite, read_array

BF16 = np.dtype(ml_dtypes.bfloat16)
PREFIX = 13  # an offset that no type is aligned to


def written(path, array):
    path.write_bytes(b"x" * PREFIX + array.tobytes())
    return open(path, "rb")


def values(shape, dtype):
    return np.random.default_rng(0).normal(0, 3, shape).astype(dtype)


@pytest.mark.parametrize("out_dtype", [None, "f4", "f2", BF16])
@pytest.mark.parametrize("dtype", ["f4", ">f4", "f8", "f2", BF16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (255, 7), (257, 33)])
@pytest.mark.parametrize("transpose", [False, True])
def test_equals_numpy(tmp_path, shape, dtype, out_dtype, transpose, monkeypatch):
    monkeypatch.setattr(raw, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(raw, "THREADED_BYTES", 2000)
    monkeypatch.setattr(raw, "ROWS_PER_BLOCK", 64)
    array = values(shape, dtype)
    with written(tmp_path / "x", array) as file:
        result = read_array(file, PREFIX, shape, dtype, out_dtype, transpose, "x")
    expected = array.astype(out_dtype or np.dtype(dtype).newbyteorder("="))
    np.testing.assert_array_equal(result, expected.T if transpose else expected)
    assert result.dtype == expected.dtype and result.dtype.isnative
    assert result.flags.c_contiguous and result.flags.writeable and result.ctypes.data % ALIGNMENT_BYTES == 0


@pytest.mark.parametrize("transpose", [False, True])
def test_a_large_array_in_two_threads(tmp_path, transpose):
    array = values((1300, 1000), "f4")
    with written(tmp_path / "x", array) as file:
        result = read_array(file, PREFIX, array.shape, "f4", None, transpose, "x")
    np.testing.assert_array_equal(result, array.T if transpose else array)


def test_integers_and_vectors_keep_their_values(tmp_path):
    for array in (np.arange(-128, 128, dtype="i1"), np.zeros((0,), "f4"), values((1000,), "f4")):
        with written(tmp_path / "x", array) as file:
            np.testing.assert_array_equal(read_array(file, PREFIX, array.shape, array.dtype, origin="x"), array)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", BF16])
@pytest.mark.parametrize("transpose", [False, True])
def test_a_value_that_is_not_finite_is_refused(tmp_path, value, dtype, transpose):
    array = np.ones((5, 300), dtype)
    assert is_finite(array)
    array[4, 299] = value
    assert not is_finite(array)
    with written(tmp_path / "x", array) as file, pytest.raises(InputError, match="file: tensor.*\n.*\n") as raised:
        read_array(file, PREFIX, array.shape, dtype, None, transpose, "file: tensor")
    assert "not finite" in str(raised.value)


@pytest.mark.parametrize("dtype", ["f2", BF16])
def test_the_largest_numbers_are_finite(dtype):
    assert is_finite(np.array([ml_dtypes.finfo(dtype).max, -ml_dtypes.finfo(dtype).max, -0.0], dtype))


@pytest.mark.parametrize("transpose", [False, True])
def test_an_overflow_of_the_cast_is_refused(tmp_path, transpose):
    array = np.full((4, 4), 1e6, "f4")
    with written(tmp_path / "x", array) as file:
        read_array(file, PREFIX, array.shape, "f4", BF16, transpose, "x")
        with pytest.raises(InputError, match="after float32 became float16"):
            read_array(file, PREFIX, array.shape, "f4", "f2", transpose, "x")


@pytest.mark.parametrize("offset", [PREFIX + 1, 10**15, -1])
def test_nothing_outside_of_the_file_is_read(tmp_path, offset):
    array = values((4, 4), "f4")
    with written(tmp_path / "x", array) as file, pytest.raises(InputError, match="too short"):
        read_array(file, offset, array.shape, "f4", origin="x")
    with written(tmp_path / "x", array) as file, pytest.raises(InputError, match="too short"):
        read_array(file, PREFIX, (10**8, 10**8), "f4", origin="x")  # and nothing of that size is allocated


@pytest.mark.parametrize("given", [7, 100, 1001])
def test_a_file_system_that_gives_less_than_asked_for(tmp_path, monkeypatch, given):
    """Network file systems may; then the rest is asked for."""
    preadv = raw.os.preadv

    def less(descriptor, parts, offset):
        return preadv(descriptor, [parts[0][:given]], offset)

    array = values((70, 30), "f4")
    monkeypatch.setattr(raw.os, "preadv", less)
    with written(tmp_path / "x", array) as file:
        for transpose in (False, True):
            result = read_array(file, PREFIX, array.shape, "f4", None, transpose, "x")
            np.testing.assert_array_equal(result, array.T if transpose else array)


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    array = values((300, 40), "f4")
    with written(tmp_path / "x", array) as file:
        preadv = raw.os.preadv
        monkeypatch.setattr(raw.os, "preadv", lambda fd, parts, offset: preadv(fd, parts, offset) if offset < 50 else 0)
        monkeypatch.setattr(raw, "BLOCK_BYTES", 4000)
        with pytest.raises(InputError, match="ends within the tensor"):
            read_array(file, PREFIX, array.shape, "f4", origin="x")


def test_alignment():
    for shape in ((1,), (3, 5), (1000, 1000)):
        array = aligned_empty(shape, BF16)
        assert array.shape == shape and array.dtype == BF16 and array.ctypes.data % ALIGNMENT_BYTES == 0
