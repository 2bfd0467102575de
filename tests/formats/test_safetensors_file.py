"""The safetensors format against its own library, and files that must be refused whatever they hold."""

import json
import os
import pickle
import struct
import tracemalloc
import zipfile

import hf_folders
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_configs import as_tensors

from llama_exp.errors import InputError
from llama_exp.formats.checkpoint import Tensor
from llama_exp.formats.safetensors_file import MAX_HEADER_BYTES, open_file, write_file

ARRAYS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.arange(5, dtype=np.float16),
    "c": np.arange(6, dtype=np.float32).reshape(1, 2, 3).astype(ml_dtypes.bfloat16),
    "d": np.array(2.5),
}
# Two tensors of 8 and 4 bytes.
HEADER = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "F16", "shape": [1, 2], "data_offsets": [8, 12]},
}
GOOD = hf_folders.file_bytes(HEADER, bytes(12))


def changed(name="b", **changes):
    return HEADER | {name: {key: value for key, value in (HEADER[name] | changes).items() if value is not ...}}


def rejected(path):
    with pytest.raises(InputError) as raised, open_file(path):
        pass
    (problem,) = raised.value.problems
    assert all((problem.what, problem.where, problem.found, problem.action))
    assert path.name in problem.where
    return f"{problem.what}: {problem.found}. {problem.action}"


# --- against the format's own library


def test_what_the_library_wrote_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(ARRAYS, path, metadata={"format": "pt"})
    with open_file(path) as (tensors, metadata):
        assert metadata == {"format": "pt"} and set(tensors) == set(ARRAYS)
        for name, array in ARRAYS.items():
            values = tensors[name].read()
            assert values.dtype == array.dtype and tensors[name].shape == array.shape
            np.testing.assert_array_equal(values, array)


def test_the_library_reads_what_was_written(tmp_path):
    path = tmp_path / "x.safetensors"
    write_file(path, as_tensors(ARRAYS), {"format": "pt"})
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"} and set(file.keys()) == set(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)
            assert file.get_tensor(name).dtype == array.dtype


def test_every_tensor_is_aligned_to_its_type(tmp_path):
    path = tmp_path / "x.safetensors"
    odd = {"half": np.ones(3, np.float16), "double": np.ones(3), "single": np.ones(3, np.float32)}
    write_file(path, as_tensors(odd), {})
    with open_file(path) as (tensors, _):
        assert all(tensor.offset % tensor.dtype.itemsize == 0 for tensor in tensors.values())


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_turned_matrix_is_written_row_by_row(tmp_path, dtype):
    path = tmp_path / "x.safetensors"
    values = np.random.default_rng(0).normal(size=(131, 517)).astype(dtype)  # over the edges of the tiles
    write_file(path, {"x": Tensor(values.T.shape, values.dtype, "", lambda _: values.T)}, {})
    with open_file(path) as (tensors, _):
        np.testing.assert_array_equal(tensors["x"].read(), values.T)
        np.testing.assert_array_equal(tensors["x"].read(transpose=True), values)


def test_writing_holds_one_tensor(tmp_path):
    shape, num_bytes = (512, 1024), 512 * 1024 * 4

    def read(_):
        return np.ones(shape[::-1], np.float32).T

    tensors = {f"x{i}": Tensor(shape, np.dtype(np.float32), "", read) for i in range(6)}
    tracemalloc.start()
    write_file(tmp_path / "x.safetensors", tensors, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_bytes <= peak < 2 * num_bytes


def test_the_file_is_on_the_disk_before_it_counts_as_written(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    write_file(tmp_path / "x.safetensors", as_tensors(ARRAYS), {})
    assert synced == [(tmp_path / "x.safetensors").stat().st_size]


def test_a_file_in_the_way_is_not_overwritten(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_file(path, as_tensors(ARRAYS), {})
    assert path.read_bytes() == b"mine"


def test_a_tensor_that_is_not_what_it_says_is_not_written(tmp_path):
    wrong = {
        "another shape": Tensor((2,), np.dtype(np.float32), "", lambda _: np.ones(3, np.float32)),
        "another type": Tensor((3,), np.dtype(np.float32), "", lambda _: np.ones(3)),
        "no float": Tensor((3,), np.dtype(np.int8), "", lambda _: np.ones(3, np.int8)),
    }
    for name, tensor in wrong.items():
        with pytest.raises(ValueError, match=name):
            write_file(tmp_path / name, {name: tensor}, {})


# --- the handle that was checked is the one that is read


def test_a_file_that_is_swapped_after_the_check_is_not_read(tmp_path):
    path, other = tmp_path / "x.safetensors", tmp_path / "other"
    safetensors.numpy.save_file({"a": np.ones(4, np.float32)}, path)
    safetensors.numpy.save_file({"a": np.zeros(4, np.float32)}, other)
    with open_file(path) as (tensors, _):
        os.replace(other, path)
        assert tensors["a"].read().tolist() == [1, 1, 1, 1]


def test_a_file_that_is_cut_after_the_check_is_an_error(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOOD)
    with open_file(path) as (tensors, _):
        os.truncate(path, len(GOOD) - 1)
        with pytest.raises(InputError, match="b"):
            tensors["b"].read()


# --- malformed files (P11)


@pytest.mark.parametrize("size", [0, 4, 8, 9, 30, len(GOOD) - 13, len(GOOD) - 12, len(GOOD) - 6, len(GOOD) - 1])
def test_truncated(tmp_path, size):
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOOD[:size])
    assert "truncated" in rejected(path)


@pytest.mark.parametrize("length", [0, 1, len(GOOD) - 7, MAX_HEADER_BYTES + 1, 100_000_001, 2**63, 2**64 - 1])
def test_impossible_header_length(tmp_path, length):
    path = tmp_path / "x.safetensors"
    path.write_bytes(hf_folders.file_bytes(HEADER, bytes(12), length))
    os.truncate(path, len(GOOD) if length < len(GOOD) * 2 else 200_000_000)  # sparse: only its size is large
    assert f"a header of {length} bytes" in rejected(path)


MALFORMED = {
    "no JSON": (b"{oops", 0, "not valid JSON"),
    "no object": (b'["a"]', 0, "not a JSON object"),
    "padded in front": (b" " + json.dumps(HEADER).encode(), 12, "not a JSON object"),
    "duplicate key": (b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"a":{}}', 4, "stands twice"),
    "nested deeply": (b'{"a":' * 9000 + b"1" + b"}" * 9000, 0, "nested too deeply"),
    "overlap": (changed(data_offsets=[4, 8]), 8, "overlap"),
    "same bytes twice": (HEADER | {"c": HEADER["a"]}, 12, "overlap"),
    "hole": (changed(data_offsets=[12, 16]), 16, "belong to no tensor"),
    "hole at the start": ({"b": HEADER["b"]}, 12, "belong to no tensor"),
    "trailing bytes": (HEADER, 13, "after its last tensor"),
    "no tensor but bytes": ({}, 1, "after its last tensor"),
    "end before start": (changed(data_offsets=[12, 8]), 12, "truncated"),
    "end behind the file": (changed(data_offsets=[8, 2**62]), 12, "truncated"),
    "negative offset": (changed(data_offsets=[-4, 0]), 12, "not one of the format"),
    "fractional offset": (changed(data_offsets=[8.0, 12.0]), 12, "not one of the format"),
    "three offsets": (changed(data_offsets=[8, 12, 12]), 12, "not one of the format"),
    "shape too large": (changed(shape=[2**40, 2**40]), 12, "does not fit its bytes"),
    "product that wraps to right": (changed(shape=[2**63 + 1, 2]), 12, "does not fit its bytes"),
    "shape too small": (changed(shape=[1]), 12, "does not fit its bytes"),
    "negative shape": (changed(shape=[-1, -2]), 12, "not one of the format"),
    "shape of booleans": (changed(shape=[True, 2]), 12, "not one of the format"),
    "shape no list": (changed(shape=2), 12, "not one of the format"),
    "a million dimensions": (changed(shape=[1] * 1_000_000 + [2]), 12, "too many dimensions"),
    "no shape": (changed(shape=...), 12, "not one of the format"),
    "no type": (changed(dtype=...), 12, "types that are not supported"),
    "foreign key": (changed(device="cuda"), 12, "not one of the format"),
    "entry no object": (HEADER | {"b": [1]}, 12, "types that are not supported"),
    "metadata no object": (HEADER | {"__metadata__": "pt"}, 12, "must be texts"),
    "metadata no text": (HEADER | {"__metadata__": {"format": 1}}, 12, "must be texts"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(tmp_path, case):
    header, data_bytes, message = MALFORMED[case]
    path = tmp_path / "x.safetensors"
    path.write_bytes(hf_folders.file_bytes(header, bytes(data_bytes)))
    assert message in rejected(path)


@pytest.mark.parametrize(
    "dtype", ["F8_E4M3", "F8_E5M2", "I8", "U8", "I32", "BOOL", "F4", "float32", "Q\x1b[2J", 7, None]
)
def test_other_types_are_refused_by_name(tmp_path, dtype):
    path = tmp_path / "x.safetensors"
    path.write_bytes(hf_folders.file_bytes(changed(dtype=dtype), bytes(12)))
    message = rejected(path)
    assert f"b is {str(dtype)[:1]}" in message and "1 tensors" in message and "BF16" in message
    assert "\x1b" not in message


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_renamed_files_are_named_and_never_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
    assert "looks like a PyTorch zip" in rejected(path)
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps([Trap()], protocol))
        assert "looks like a Python pickle" in rejected(path)
    for content, name in {
        b"GGUF\x03\0\0\0" + bytes(16): "a GGUF file",
        b"\x89HDF\r\n\x1a\n" + bytes(16): "an HDF5 file",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0": "a pointer of Git LFS",
        b"<!DOCTYPE html><html></html>": "a web page",
    }.items():
        path.write_bytes(content)
        assert f"looks like {name}" in rejected(path)
    assert not (tmp_path / "trapped").exists()


def test_a_header_as_long_as_a_pickle_begins_is_read(tmp_path):
    text = json.dumps(HEADER).encode().ljust(0x0280)  # as little-endian bytes: 80 02
    path = tmp_path / "x.safetensors"
    path.write_bytes(hf_folders.file_bytes(text, bytes(12)))
    assert path.read_bytes().startswith(pickle.dumps(1, 2)[:2])
    with open_file(path) as (tensors, _):
        assert set(tensors) == {"a", "b"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_is_not_finite_is_named(tmp_path, value):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"fine": np.ones(3), "bad.weight": np.array([1, value])}, path)
    with open_file(path) as (tensors, _):
        tensors["fine"].read()
        with pytest.raises(InputError, match=r"x.safetensors: bad.weight"):
            tensors["bad.weight"].read()


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    assert "ordinary file" in rejected(tmp_path / "x.safetensors")


# --- whatever the bytes are

counts = st.integers(-1, 20) | st.sampled_from([2**31, 2**63, 2**64, 10**29])
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "I8", "", 1]),
        "shape": st.lists(counts, max_size=4) | counts,
        "data_offsets": st.lists(counts, max_size=3),
    },
)
headers = st.dictionaries(st.text(max_size=4), entries | st.none() | st.lists(st.none(), max_size=2), max_size=4)
files = st.one_of(
    st.binary(max_size=200),
    st.builds(hf_folders.file_bytes, headers, st.binary(max_size=40)),
    st.builds(hf_folders.file_bytes, st.binary(max_size=100), st.binary(max_size=40), st.none() | st.integers(0, 99)),
    st.builds(  # a good file with a few bytes changed
        lambda changes: bytes(changes.get(i, byte) for i, byte in enumerate(GOOD)),
        st.dictionaries(st.integers(0, len(GOOD) - 1), st.integers(0, 255), max_size=3),
    ),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files)
def test_any_bytes_are_read_or_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with open_file(path) as (tensors, _):
            for tensor in tensors.values():
                assert tensor.read().shape == tensor.shape
            num_bytes = sum(tensor.dtype.itemsize * int(np.prod(tensor.shape)) for tensor in tensors.values())
        (length,) = struct.unpack("<Q", content[:8])
        assert 8 + length + num_bytes == len(content)
    except InputError as error:
        assert "x.safetensors" in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20
