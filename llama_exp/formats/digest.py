"""The digest of a model's weights, read from files one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from llama_exp.files.digest import array_digest
from llama_exp.formats.checkpoint import Tensor


def digest_tensors(tensors: Iterable[tuple[str, Tensor]], dtype: np.dtype) -> str:
    """What `backend.digest.weights_digest` gives for the variables of a model that holds these tensors.

    Args:
        tensors: (path, tensor) in the order of the paths.
        dtype: of the model's floating-point variables; quantized weights and their scales keep their own.
    """
    return array_digest((path, _read(path, tensor, dtype)) for path, tensor in tensors)


def _read(path: str, tensor: Tensor, dtype: np.dtype) -> np.ndarray:
    is_part = tensor.dtype.itemsize == 1 or path.endswith(("_scale", "_zero"))
    return tensor.read(None if is_part else dtype)
