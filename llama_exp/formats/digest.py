"""The digest of a model's weights, read from files one tensor at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from llama_exp.formats.checkpoint import Tensor


def digest_tensors(tensors: Iterable[tuple[str, Tensor]], dtype: np.dtype) -> str:
    """What `backend.digest.weights_digest` gives for the variables of a model that holds these tensors.

    Args:
        tensors: (path, tensor) in the order of the paths.
        dtype: of the model's floating-point variables; quantized weights and their scales keep their own.
    """
    digest = hashlib.sha256()
    for path, tensor in tensors:
        is_part = tensor.dtype.itemsize == 1 or path.endswith(("_scale", "_zero"))
        values = tensor.read(None if is_part else dtype)
        digest.update(f"{path} {values.dtype} {values.shape}\n".encode())
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
