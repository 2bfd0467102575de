"""The one writer of safetensors, for every type; the format's own library reads it."""

import hashlib
from typing import NamedTuple

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

from llama_exp.files.safetensors_writer import DTYPE_NAMES, write_safetensors


class Tensor(NamedTuple):
    values: np.ndarray

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def read(self, _):
        return self.values


@pytest.mark.parametrize("dtype", DTYPE_NAMES, ids=str)
def test_every_type_and_layout(tmp_path, dtype):
    values = (np.arange(24) % 2).astype(dtype).reshape(2, 3, 4)
    arrays = {
        "c": values,
        "turned": values[0].T,
        "strided": values[:, ::2],
        "empty": values[:0],
        "scalar": values[0, 0, 1],
    }
    tensors = {name: Tensor(np.asarray(array)) for name, array in arrays.items()}
    hasher = hashlib.sha256()
    size = write_safetensors(tmp_path / "x", tensors, hasher=hasher)
    content = (tmp_path / "x").read_bytes()
    assert (size, hasher.hexdigest()) == (len(content), hashlib.sha256(content).hexdigest())
    found = load_file(tmp_path / "x")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(found[name], array)


def test_metadata_and_alignment(tmp_path):
    tensors = {name: Tensor(np.zeros(3, dtype)) for name, dtype in (("a", "uint8"), ("b", "float32"), ("c", "float64"))}
    write_safetensors(tmp_path / "x", tensors, {"format": "pt"})
    with safetensors.safe_open(tmp_path / "x", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.offset_keys() == ["c", "b", "a"]  # wide types first: each is aligned to its own size
    write_safetensors(tmp_path / "y", tensors)
    with safetensors.safe_open(tmp_path / "y", "numpy") as file:
        assert not file.metadata()


def test_what_the_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a is complex64"):
        write_safetensors(tmp_path / "x", {"a": Tensor(np.zeros(3, "complex64"))})
    assert not (tmp_path / "x").exists()
