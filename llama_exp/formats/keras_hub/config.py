"""The `config.json` of a KerasHub preset <-> constructor arguments of `LlamaBackbone`.

The file is data: every key is checked and copied by name, no class named in it is looked up or built. The same holds
for the dtype policies in it, which are how KerasHub says that a model is quantized.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from llama_exp.architecture import (
    DEFAULTS,
    LINEAR_NAMES,
    ROPE_ADJUSTMENT,
    SIZES,
    TOKEN_EMBEDDING,
    Quantization,
    linear_shapes,
)
from llama_exp.errors import InputError
from llama_exp.files.json_file import inside, read_json
from llama_exp.formats.checkpoint import require_possible

CONFIG_FILE = "config.json"
REGISTERED_NAMES = frozenset(
    f"{package}>{name}" for package in ("keras_nlp", "keras_hub") for name in ("LlamaBackbone", "Llama3Backbone")
)
# `assets` and `weights` stand in files of KerasNLP; the last two are Keras' own book-keeping.
FILE_KEYS = frozenset(
    {"module", "class_name", "config", "registered_name", "assets", "weights", "build_config", "compile_config"}
)
NUMBER_KEYS = ("rope_max_wavelength", "rope_position_scaling_factor", "layer_norm_epsilon", "dropout")
OLD_NAMES = {"rope_scaling_factor": "rope_position_scaling_factor"}
# Not arguments of the architecture: how it is called, and what the precision policy decides here.
IGNORED_KEYS = frozenset({"name", "trainable", "dtype"})
# Published presets lack the scaling of their original, or have another epsilon: KerasHub's converter dropped them.
DOUBTFUL = frozenset({"layer_norm_epsilon", "rope_position_scaling_factor", *ROPE_ADJUSTMENT})
# The modes of Keras' quantized policies: int8, int4 with one scale per output, int4/128 with one per 128 inputs. Its
# "float8" is none of weights: it trains, and means floats beside their largest values.
QUANTIZED_MODE = re.compile(r"(int8|int4)(?:/(-1|[1-9][0-9]{0,5}))?")
FLOAT_POLICIES = frozenset(
    prefix + name for prefix in ("", "mixed_") for name in ("float16", "bfloat16", "float32", "float64")
)
# Keys of ours beside Keras' own, which KerasHub does not read: its int8 layers always round their inputs.
QUANTIZE_ACTIVATIONS, FLOAT_ACTIVATIONS = "quantize_activations", "float_activations"
ASYMMETRIC_ACTIVATIONS, GPTQ = "asymmetric_activations", "gptq"
INT8 = Quantization("int8", quantize_activations=True)
NAMES_SHOWN = 8


class Stated(NamedTuple):
    """What a configuration says.

    config: constructor arguments, defaults filled in; without `tie_word_embeddings` where the file does not say.
    quantization: None for floating-point weights.
    """

    config: dict
    quantization: Quantization | None


def read_config(folder: Path) -> Stated:
    """The constructor arguments in `config.json`, under their newer names.

    KerasHub forgets `tie_word_embeddings` when it saves; then the key is missing here too, and the weights tell.

    Raises:
        InputError: no such file, not JSON, another format or model, or an unknown or impossible key.
    """
    path = inside(folder, CONFIG_FILE)
    document = read_json(path)
    if not isinstance(document.get("config"), dict) or not isinstance(document.get("registered_name"), str):
        what, found = "not the configuration of a KerasHub preset", f"keys {sorted(document)[:NAMES_SHOWN]}"
        raise InputError.about(path, what, found, "give the folder of a KerasHub preset, or preset=none")
    if document["registered_name"] not in REGISTERED_NAMES:
        found = repr(document["registered_name"])[:80]
        raise InputError.about(path, "the preset is not a Llama", found, f"choose one of {sorted(REGISTERED_NAMES)}")
    config = document["config"]
    _refuse_unknown(path, "", document, FILE_KEYS)
    known = {*SIZES, "tie_word_embeddings", *NUMBER_KEYS, *ROPE_ADJUSTMENT, *OLD_NAMES, *IGNORED_KEYS}
    _refuse_unknown(path, "config.", config, known)
    arguments = _arguments(path, config)
    require_possible(DEFAULTS | arguments, str(path))
    defaults = {key: value for key, value in DEFAULTS.items() if key != "tie_word_embeddings"}
    return Stated(defaults | arguments, read_policies(path, config.get("dtype"), arguments))


def config_document(config: Mapping, class_name: str, dtype: str, quantization: Quantization | None = None) -> dict:
    """What `config.json` holds for an architecture, in the form that KerasHub reads.

    Args:
        config: every constructor argument of the backbone.
        class_name: `LlamaBackbone`, or `Llama3Backbone` for KerasHub's Llama 3 classes (same architecture).
        dtype: of the floating-point weights.
        quantization: None for floating-point weights; not float8, which the format does not have.
    """
    module = "llama3.llama3_backbone" if class_name == "Llama3Backbone" else "llama.llama_backbone"
    policy = _policy("keras", "DTypePolicy", {"name": dtype})
    if quantization is not None:
        policy = _policy_map(config, quantization)
    return {
        "module": f"keras_hub.src.models.{module}",
        "class_name": class_name,
        "config": {"name": "llama_backbone", "trainable": True, "dtype": policy, **config},
        "registered_name": f"keras_hub>{class_name}",
    }


def _policy_map(config: Mapping, quantization: Quantization) -> dict:
    """The serialized dtype policies of a quantized backbone, as KerasHub writes and reads them.

    They compute in the reader's own policy, which is what null stands for in them.
    """
    layers = (TOKEN_EMBEDDING, *linear_shapes(config))
    policy_map = {layer: _quantized_policy(quantization.of(layer)) for layer in layers}
    policies = {"default_policy": None, "policy_map": policy_map}
    document = _policy("keras.dtype_policies", "DTypePolicyMap", policies)
    if quantization.mode == "int8" and not quantization.quantize_activations:
        document[QUANTIZE_ACTIVATIONS] = False
    if quantization.float_activations:
        document[FLOAT_ACTIVATIONS] = list(quantization.float_activations)
    if quantization.asymmetric_activations:
        document[ASYMMETRIC_ACTIVATIONS] = True
    if quantization.gptq:
        document[GPTQ] = True
    return document


def _quantized_policy(quantization: Quantization) -> dict:
    mode, class_name = quantization.mode, "QuantizedDTypePolicy"
    if mode == "int4":
        mode, class_name = f"int4/{quantization.group_size or -1}", "Int4DTypePolicy"
    return _policy("keras.dtype_policies", class_name, {"mode": mode, "source_name": None})


def _policy(module: str, class_name: str, config: dict) -> dict:
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


def _arguments(path: Path, config: dict) -> dict:
    arguments: dict = {}
    for key, value in config.items():
        if key in IGNORED_KEYS:
            continue
        name = OLD_NAMES.get(key, key)
        if arguments.get(name, value) != value:
            found = f"{value!r} and {arguments[name]!r}"[:80]
            raise InputError.about(path, f"{key} and {name} disagree", found, "download it again")
        _check_value(path, name, value)
        arguments[name] = value
    missing = [key for key in SIZES if key not in arguments]
    if missing:
        raise InputError.about(path, "the configuration is incomplete", f"no {', '.join(missing)}", "download it again")
    return arguments


def _check_value(path: Path, key: str, value) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if key in SIZES:
        valid, wanted = number and isinstance(value, int) and value >= 1, "a whole number of at least 1"
    elif key == "tie_word_embeddings":
        valid, wanted = isinstance(value, bool), "true or false"
    elif key in ROPE_ADJUSTMENT:
        valid, wanted = value is None or (number and value > 0), "null or a number above 0"
    elif key == "dropout":
        valid, wanted = number and 0 <= value < 1, "a number in [0, 1)"
    else:
        valid, wanted = number and value > 0, "a number above 0"
    if not valid:
        raise InputError.about(path, f"config.{key} must be {wanted}", repr(value)[:80], "download the preset again")


def _refuse_unknown(path: Path, prefix: str, values: dict, known) -> None:
    unknown = sorted(key for key in values if key not in known)
    if unknown:
        names = ", ".join(prefix + repr(key)[1:-1][:60] for key in unknown[:NAMES_SHOWN])
        action = "a key that is not understood may change the model; remove it only if you know that it does not"
        raise InputError.about(path, "the configuration has unknown keys", names, action)


def read_policies(path: Path, dtype, arguments: dict) -> Quantization | None:
    """How the weights are stored, from one policy for all layers or a map of policies by layer."""
    if not isinstance(dtype, dict) or dtype.get("class_name") != "DTypePolicyMap":
        return _mode(path, "dtype", dtype)
    config = dtype.get("config")
    policies = config.get("policy_map") if isinstance(config, dict) else None
    if not isinstance(policies, dict):
        raise _unknown_policy(path, "dtype", dtype)
    modes = {layer: _mode(path, f"dtype of {layer[:80]}", policy) for layer, policy in policies.items()}
    default = _mode(path, "the default dtype", dtype["config"].get("default_policy"))
    layers = (TOKEN_EMBEDDING, *linear_shapes(arguments))
    # Norms and other layers without a kernel stay in floating point whatever the map says.
    foreign = [layer for layer, mode in modes.items() if layer not in layers and mode is not None]
    if foreign:
        names = ", ".join(foreign[:NAMES_SHOWN])[:300]
        raise InputError.about(
            path, "layers that the model does not have are quantized", names, "download the preset again"
        )
    return _with_rounding(path, dtype, _as_one(path, {layer: modes.get(layer, default) for layer in layers}))


def _as_one(path: Path, modes: dict[str, Quantization | None]) -> Quantization | None:
    """The quantization of a model of which every layer has one of `modes`: all the same, or int4 and some of int8."""
    embedding, *linear = modes.values()
    one, stated = linear[0], dict.fromkeys(modes, linear[0])
    int4 = next((mode for mode in linear if mode is not None and mode.mode == "int4"), None)
    if int4 is not None:
        names = {layer.rpartition("/")[2] for layer, mode in modes.items() if mode == INT8}
        int8_layers = tuple(name for name in LINEAR_NAMES if name in names)
        embeddings = "int8" if embedding == INT8 else None
        one = dataclasses.replace(int4, embeddings=embeddings, int8_layers=int8_layers)
        stated = {layer: INT8 if one.of(layer).mode == "int8" else int4 for layer in modes}
    if stated != modes:
        kinds = " and ".join(sorted({"floating point" if mode is None else mode.mode for mode in modes.values()}))
        other = next(layer for layer, mode in modes.items() if mode != stated[layer])
        what = "only some of the layers are quantized, or in several ways, which is not supported"
        action = "use a preset that is quantized as a whole, or not at all"
        action = f"{action} (int4 may have int8 embeddings and, the same in every block, int8 layers)"
        raise InputError.about(path, what, f"{kinds}, one of them in {other}", action)
    return one


def _with_rounding(path: Path, dtype: dict, quantization: Quantization | None) -> Quantization | None:
    """What our own keys in a map of policies say about rounding; without them it is as Keras has it."""
    gptq = dtype.get(GPTQ, False)
    if not isinstance(gptq, bool) or (gptq and (quantization is None or quantization.mode != "int4")):
        raise InputError.about(path, "dtype.gptq must be false, or true for int4", repr(gptq)[:80], "correct it")
    if gptq and quantization is not None:
        quantization = dataclasses.replace(quantization, gptq=True)
    rounds, floats = dtype.get(QUANTIZE_ACTIVATIONS, True), dtype.get(FLOAT_ACTIVATIONS, [])
    asymmetric = dtype.get(ASYMMETRIC_ACTIVATIONS, False)
    if rounds is True and floats == [] and asymmetric is False:
        return quantization
    is_int8 = quantization is not None and quantization.mode == "int8"
    if not isinstance(rounds, bool) or not (rounds or is_int8):
        what = "dtype.quantize_activations must be true, or false for int8"
        raise InputError.about(path, what, repr(rounds)[:80], "correct it")
    names = (*LINEAR_NAMES, TOKEN_EMBEDDING)
    if not isinstance(floats, list) or any(name not in names for name in floats) or (floats and not rounds):
        what = "dtype.float_activations must be a list of layers' names, for int8 with rounded activations"
        raise InputError.about(path, what, repr(floats)[:80], f"correct it; names are {', '.join(names)}")
    if floats and not is_int8:
        raise InputError.about(path, "dtype.float_activations is for int8 only", repr(floats)[:80], "correct it")
    if not isinstance(asymmetric, bool) or (asymmetric and not (is_int8 and rounds)):
        what = "dtype.asymmetric_activations must be false, or true for int8 with rounded activations"
        raise InputError.about(path, what, repr(asymmetric)[:80], "correct it")
    return Quantization("int8", rounds, float_activations=tuple(floats), asymmetric_activations=asymmetric)


def _mode(path: Path, where: str, policy) -> Quantization | None:
    """The quantization that one serialized policy or its name means; None: floating point."""
    if policy is None:
        return None
    config = policy.get("config") if isinstance(policy, dict) else None
    config = config if isinstance(config, dict) else {}
    name = policy if isinstance(policy, str) else config.get("name")
    if isinstance(name, str) and name in FLOAT_POLICIES:
        return None
    text = config.get("mode", name.partition("_from_")[0] if isinstance(name, str) else None)
    match = QUANTIZED_MODE.fullmatch(text) if isinstance(text, str) else None
    if match is None or (match[1] != "int4" and match[2]):
        raise _unknown_policy(path, where, policy)
    group_size = None if match[2] in (None, "-1") else int(match[2])
    return Quantization(match[1], quantize_activations=match[1] == "int8", group_size=group_size)


def _unknown_policy(path: Path, where: str, policy) -> InputError:
    action = "use a preset with floating-point, int8 or int4 weights (quantization=float8 makes float8 of the first)"
    return InputError.about(path, f"{where} is no type of weights that is supported", repr(policy)[:120], action)
