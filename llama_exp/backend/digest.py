"""A digest of weights, to tell whether two models hold the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from keras import ops


def weights_digest(variables: Iterable) -> str:
    """Hexadecimal SHA-256 over path, dtype, shape and bytes of Keras variables, in the order of their paths."""
    digest = hashlib.sha256()
    for variable in sorted(variables, key=lambda variable: variable.path):
        array = np.ascontiguousarray(ops.convert_to_numpy(variable.value))
        digest.update(f"{variable.path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
