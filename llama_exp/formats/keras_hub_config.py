"""The `config.json` of a KerasHub preset <-> constructor arguments of `LlamaBackbone`.

The file is data: every key is checked and copied by name, no class named in it is looked up or built.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

from llama_exp.architecture import ROPE_ADJUSTMENT, SIZES
from llama_exp.errors import InputError, Problem

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 1 << 20  # published ones have 1 to 60 KB
REGISTERED_NAMES = frozenset(
    f"{package}>{name}" for package in ("keras_nlp", "keras_hub") for name in ("LlamaBackbone", "Llama3Backbone")
)
# `assets` and `weights` stand in files of KerasNLP; the last two are Keras' own book-keeping.
FILE_KEYS = frozenset(
    {"module", "class_name", "config", "registered_name", "assets", "weights", "build_config", "compile_config"}
)
SHAPE_KEYS = (*SIZES, "tie_word_embeddings")
NUMBER_KEYS = ("rope_max_wavelength", "rope_position_scaling_factor", "layer_norm_epsilon", "dropout")
OLD_NAMES = {"rope_scaling_factor": "rope_position_scaling_factor"}
# Not arguments of the architecture: how it is called, and what the precision policy decides here.
IGNORED_KEYS = frozenset({"name", "trainable", "dtype"})


def read_config(folder: Path) -> dict:
    """Constructor arguments from `config.json`, under their newer names, as far as the file states them.

    KerasHub forgets `tie_word_embeddings` when it saves; then the key is missing here too, and the weights tell.

    Raises:
        InputError: no such file, not JSON, another format or model, an int8 preset, or an unknown or impossible key.
    """
    path = Path(folder) / CONFIG_FILE
    document = read_json(path)
    if not isinstance(document.get("config"), dict) or not isinstance(document.get("registered_name"), str):
        raise InputError(_not_keras_hub(path, document))
    if document["registered_name"] not in REGISTERED_NAMES:
        raise _reject(path, "the preset is not a Llama", document["registered_name"], f"{sorted(REGISTERED_NAMES)}")
    config = document["config"]
    if _is_quantized(config.get("dtype")):
        action = "use the preset without int8, whose weights are floating-point"
        raise _reject(path, "quantized presets are not supported yet", "dtype of a quantized model", action)
    _refuse_unknown(path, "", document, FILE_KEYS)
    known = {*SHAPE_KEYS, *NUMBER_KEYS, *ROPE_ADJUSTMENT, *OLD_NAMES, *IGNORED_KEYS}
    _refuse_unknown(path, "config.", config, known)
    return _arguments(path, config)


def read_json(path: Path) -> dict:
    """A JSON object from a small file of a preset.

    Raises:
        InputError: the file is missing, too large, not JSON, or not an object.
    """
    try:
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise _reject(path, "the file is too large for what it holds", f"{size} bytes", "download it again")
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        action = "give the folder of a KerasHub preset (config.json, model.weights.h5)"
        raise _reject(path, "the file cannot be read", error.strerror or str(error), action) from error
    except (ValueError, RecursionError) as error:
        raise _reject(path, "the file is not valid JSON", str(error)[:200], "download it again") from error
    if not isinstance(document, dict):
        raise _reject(path, "the file does not hold a JSON object", type(document).__name__, "download it again")
    return document


def require_agreement(config: dict, stated: dict, folder: Path) -> None:
    """Fails if a shape that the caller states is not the preset's, listing every field that differs.

    Other hyperparameters (rope, epsilon) may differ, because some published files carry wrong ones; the caller's
    value holds and a warning names both.

    Args:
        config: from `read_config`.
        stated: constructor arguments that the caller gives, newer names.
        folder: the preset's folder, for messages.
    """
    differing = [key for key, value in stated.items() if key in config and config[key] != value and key != "dropout"]
    problems = [
        Problem(
            f"the preset in {folder} has another shape",
            f"model.{key}",
            f"{stated[key]} (preset: {config[key]})",
            f"set model.{key}={config[key]}, choose another preset, or preset=none",
        )
        for key in differing
        if key in SHAPE_KEYS
    ]
    if problems:
        raise InputError(*problems)
    for key in differing:
        logger.warning("model.%s=%s holds; the preset in %s has %s", key, stated[key], folder, config[key])


def config_document(backbone, class_name: str) -> dict:
    """What `config.json` holds for a backbone, in the form that KerasHub reads.

    Args:
        backbone: a `LlamaBackbone`.
        class_name: `LlamaBackbone`, or `Llama3Backbone` for KerasHub's Llama 3 classes (same architecture).
    """
    module = "llama3.llama3_backbone" if class_name == "Llama3Backbone" else "llama.llama_backbone"
    return {
        "module": f"keras_hub.src.models.{module}",
        "class_name": class_name,
        "config": backbone.get_config(),
        "registered_name": f"keras_hub>{class_name}",
    }


def _arguments(path: Path, config: dict) -> dict:
    arguments = {}
    for key, value in config.items():
        if key in IGNORED_KEYS:
            continue
        name = OLD_NAMES.get(key, key)
        if arguments.get(name, value) != value:
            raise _reject(path, f"{key} and {name} disagree", f"{value} and {arguments[name]}", "download it again")
        _check_value(path, name, value)
        arguments[name] = value
    missing = [key for key in SIZES if key not in arguments]
    if missing:
        raise _reject(path, "the configuration is incomplete", f"no {', '.join(missing)}", "download it again")
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
        raise _reject(path, f"config.{key} must be {wanted}", repr(value)[:80], "download the preset again")


def _refuse_unknown(path: Path, prefix: str, values: dict, known) -> None:
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        names = ", ".join(prefix + key[:60] for key in unknown[:8])
        action = "a key that is not understood may change the model; remove it only if you know that it does not"
        raise _reject(path, "the configuration has unknown keys", names, action)


def _is_quantized(dtype) -> bool:
    # A DTypePolicyMap, a QuantizedDTypePolicy or its name, such as int8_from_float32.
    name = dtype.get("class_name") if isinstance(dtype, dict) else dtype
    config = dtype.get("config") if isinstance(dtype, dict) else None
    policy = config.get("name") if isinstance(config, dict) else None
    texts = [text for text in (name, policy) if isinstance(text, str)]
    return any("Map" in text or "Quantized" in text or "int8" in text or "int4" in text for text in texts)


def _not_keras_hub(path: Path, document: dict) -> Problem:
    if "model_type" in document or "architectures" in document:
        what, found = "Hugging Face checkpoints are not supported yet", f"model_type={document.get('model_type')!r}"
    else:
        what, found = "not the configuration of a KerasHub preset", f"keys {sorted(map(str, document))[:8]}"
    return Problem(what, str(path), found, "give the folder of a KerasHub preset, or preset=none")


def _no_constant(text: str):
    raise ValueError(f"{text} is not JSON")


def _reject(path: Path, what: str, found: str, action: str) -> InputError:
    return InputError(Problem(what, str(path), found, action))
