"""A digest of weights, to tell whether two models hold the same ones."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from keras import ops

from llama_exp.files.digest import array_digest


def weights_digest(variables: Iterable) -> str:
    """Hexadecimal SHA-256 over path, dtype, shape and bytes of Keras variables, in the order of their paths."""
    in_order = sorted(variables, key=lambda variable: variable.path)
    return array_digest((v.path, np.ascontiguousarray(ops.convert_to_numpy(v.value))) for v in in_order)
