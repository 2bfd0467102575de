"""What two arguments of a backbone mean: `dtype`, which it computes in, and `quantization`, how weights are stored.

Keras' own (de)serialization of policies imports TensorFlow on every backend, and would build what a file names.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras

from llama_exp.architecture import Quantization, make_quantization, to_section
from llama_exp.formats.quantized import require_possible

FLOATS = ("float16", "bfloat16", "float32", "float64")


def read_policy(dtype) -> keras.DTypePolicy:
    """The floating-point policy that a constructor's `dtype` means.

    Args:
        dtype: name of a Keras policy, a policy, its serialized form; None: the global policy.

    Raises:
        ValueError: none of these, or a policy of quantized weights.
    """
    try:
        policy = keras.DTypePolicy(_name_of(dtype))
    except (ValueError, TypeError) as error:
        raise _unknown_dtype(dtype) from error
    if policy.variable_dtype not in FLOATS:
        raise _unknown_dtype(dtype)
    return policy


def read_quantization(quantization, compute_dtype: str) -> Quantization | None:
    """The `Quantization` that a constructor's `quantization` means; None: floating point.

    Args:
        quantization: a `Quantization`, or the options of `make_quantization` as a mapping, or None.
        compute_dtype: of the products.

    Raises:
        ValueError: none of these, or impossible options, or products that cannot run in `compute_dtype`.
    """
    if not isinstance(quantization, Quantization):
        section = section_of(quantization)
        try:
            quantization = make_quantization(**section)
        except (ValueError, TypeError) as error:
            raise ValueError(f"quantization={str(quantization)[:200]}: {error}") from error
    require_possible(quantization, compute_dtype)
    return quantization


def section_of(quantization) -> dict:
    """The same argument as a config's `quantization` section: every option, None where it is left open.

    Raises:
        ValueError: it is none of what `read_quantization` takes, or has unknown options.
    """
    if quantization is None or isinstance(quantization, Quantization):
        return to_section(quantization)
    if not isinstance(quantization, Mapping):
        raise ValueError(
            f"quantization={quantization!r} must be options such as {{'mode': 'int8'}}, a Quantization, or None."
        )
    options = dict.fromkeys(to_section(None))
    if unknown := sorted(map(str, quantization.keys() - options.keys())):
        raise ValueError(f"quantization has no options {', '.join(unknown)}. There are {', '.join(options)}.")
    return options | dict(quantization)


def _name_of(dtype):
    if dtype is None:
        return keras.config.dtype_policy().name
    if isinstance(dtype, keras.DTypePolicy):
        return dtype.name
    config = dtype.get("config") if isinstance(dtype, Mapping) else None
    return config["name"] if isinstance(config, Mapping) and "name" in config else dtype


def _unknown_dtype(dtype) -> ValueError:
    return ValueError(
        f"dtype={str(dtype)[:200]!r} is no floating-point policy. Use a name such as float32, bfloat16, mixed_bfloat16 "
        "or mixed_float16, a keras.DTypePolicy, or its serialized form. For weights in small types, which KerasHub "
        "states by a map of policies, give quantization={'mode': 'int8'}, int4 or float8 beside it."
    )
