"""Named arrays of a checkpoint in a safetensors file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llama_exp.files.safetensors_writer import write_safetensors


class HostArray(NamedTuple):
    """An array in memory as the writer takes it."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the array."""
        return self.values.dtype

    def read(self, _dtype: None) -> np.ndarray:
        """The array itself."""
        return self.values


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Writes a new file, through to the disk, hashed on the way.

    Returns:
        {"bytes": size, "sha256": hex digest}, for a manifest.

    Raises:
        OSError: it cannot be written, or exists.
    """
    tensors = {name: HostArray(np.asarray(array)) for name, array in sorted(arrays.items())}
    hasher = hashlib.sha256()
    size = write_safetensors(path, tensors, hasher=hasher)
    return {"bytes": size, "sha256": hasher.hexdigest()}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file whose digest was verified."""
    from safetensors.numpy import load_file

    return load_file(path)
