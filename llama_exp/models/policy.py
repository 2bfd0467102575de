"""The `dtype` of a backbone: a float policy and, for a quantized one, how its layers are stored; and its serial form.

Keras' own (de)serialization of policies imports TensorFlow on every backend, and would build what a file names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import keras

from llama_exp import backend
from llama_exp.architecture import Quantization
from llama_exp.errors import InputError
from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.formats.keras_hub.config import policy_map, stated_quantization
from llama_exp.formats.quantized import require_possible


class Dtype(NamedTuple):
    """policy: of everything that is computed. quantization: of the layers' weights; None: floating-point."""

    policy: keras.DTypePolicy
    quantization: Quantization | None


def parsed(dtype, config: Mapping) -> Dtype:
    """What a constructor's `dtype` means.

    Args:
        dtype: name of a Keras policy, a policy, its serialized form; None: the global policy. A `DTypePolicyMap` or
            its serialized form with a quantized policy for every linear layer and the token embedding: quantized.
        config: the backbone's constructor arguments.

    Raises:
        ValueError: none of these; or only some layers are quantized; or int8 with float16.
    """
    document = _document(dtype)
    try:
        quantization = stated_quantization(Path("dtype"), document, dict(config))
        policy = keras.DTypePolicy(_float_name(document))
    except (InputError, ValueError, TypeError) as error:
        raise ValueError(
            f"dtype={dtype!r} is no Keras dtype policy. Use a name such as float32, bfloat16, mixed_bfloat16 or "
            f"mixed_float16, a keras.DTypePolicy, its serialized form, or KerasHub's map for a quantized model. {error}"
        ) from error
    require_possible(quantization, policy.compute_dtype)
    return Dtype(policy, quantization)


def serialized(policy: keras.DTypePolicy, quantization: Quantization | None, config: Mapping) -> dict:
    """The form that `parsed` reads; Keras' own."""
    if quantization is not None:
        return policy_map(config, quantization, policy.name)
    return backend.serialized_policy(policy)


def for_checkpoint(dtype, checkpoint: Checkpoint):
    """`dtype` for a backbone that is filled from `checkpoint`: with its quantization, unless it states one itself."""
    policy, quantization = parsed(dtype, checkpoint.config)
    if quantization is not None or checkpoint.quantization is None:
        return dtype
    return serialized(policy, checkpoint.quantization, checkpoint.config)


def _document(dtype):
    """Policies as the dicts that they serialize to; everything else as it is."""
    if isinstance(dtype, keras.dtype_policies.DTypePolicyMap):
        policies = {layer: _document(dtype[layer]) for layer in dtype}
        config = {"default_policy": _document(dtype.default_policy), "policy_map": policies}
        return {"class_name": "DTypePolicyMap", "config": config}
    if isinstance(dtype, keras.DTypePolicy):
        return {"class_name": type(dtype).__name__, "config": dtype.get_config()}
    return dtype


def _float_name(document) -> str:
    """The name of the float policy in a document that is known to be sound."""
    if document is None:
        return keras.config.dtype_policy().name
    if isinstance(document, str):
        return document.rpartition("_from_")[2]
    config = document["config"]
    if "policy_map" in config:
        names = [_float_name(policy) for policy in (config.get("default_policy"), *config["policy_map"].values())]
        return names[0] if config.get("default_policy") is not None else names[-1]
    return config["name"] if "name" in config else config.get("source_name") or keras.config.dtype_policy().name
