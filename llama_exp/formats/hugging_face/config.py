"""The `config.json` of a Hugging Face Llama <-> constructor arguments of `LlamaBackbone`.

The file is data: no class named in it is imported, and every key in it means something known (`hugging_face_keys`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from llama_exp.architecture import DEFAULTS
from llama_exp.errors import InputError, Problem
from llama_exp.files.json_file import inside, read_json
from llama_exp.formats.checkpoint import require_possible
from llama_exp.formats.hugging_face.keys import ACTIVATIONS, ARCHITECTURES, IRRELEVANT, REFUSED, USED

CONFIG_FILE = "config.json"
SIZE_KEYS = {
    "vocabulary_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "num_query_heads": "num_attention_heads",
    "hidden_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
    "num_key_value_heads": "num_key_value_heads",
}
ROPE_KEYS = {
    "rope_frequency_adjustment_factor": "factor",
    "rope_low_freq_factor": "low_freq_factor",
    "rope_high_freq_factor": "high_freq_factor",
    "rope_pretraining_sequence_length": "original_max_position_embeddings",
}
# Keys of a rope_scaling or rope_parameters by its type, beside those that all have.
ROPE_TYPES = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset(ROPE_KEYS.values()),
}
ROPE_COMMON = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor"})
NAMES_SHOWN = 8


class Stated(NamedTuple):
    """What a configuration says.

    config: constructor arguments of the backbone, all of `architecture.CONFIG_KEYS`. context_length: tokens that the
    model is meant for (`max_position_embeddings`); None where the file does not say.
    """

    config: dict
    context_length: int | None


def read_config(folder: Path) -> Stated:
    """The architecture in `config.json`.

    Raises:
        InputError: no such file, not JSON, not a Llama, or a key that is unknown, refused, impossible, or contradicts
            another; all such keys together.
    """
    path = inside(folder, CONFIG_FILE)
    document = read_json(path)
    _refuse_foreign(path, document)
    problems = _Problems(path)
    _refuse_keys(document, problems)
    config = DEFAULTS | _sizes(document, problems)
    epsilon = problems.number("rms_norm_eps", document.get("rms_norm_eps"))
    if epsilon is not None:
        config["layer_norm_epsilon"] = epsilon
    config["tie_word_embeddings"] = _flag(document, "tie_word_embeddings", problems)
    config |= _rope(document, problems)
    context_length = problems.number("max_position_embeddings", document.get("max_position_embeddings"), whole=True)
    _check_activation(document, problems)
    problems.raise_any()
    require_possible(config, str(path))
    _check_head_dim(document, config, problems)
    problems.raise_any()
    return Stated(config, context_length)


def config_document(config: Mapping, dtype: str, notes: Mapping | None = None) -> dict:
    """What `config.json` holds, in the layout that every version of transformers reads.

    Transformers 5 keeps rope in `rope_parameters`, but also reads `rope_theta` and `rope_scaling`, and older versions
    read nothing else.

    Args:
        config: all of `architecture.CONFIG_KEYS`.
        dtype: of the stored weights, such as bfloat16; transformers 5 computes in it.
        notes: what is known of `bos_token_id`, `eos_token_id`, `pad_token_id` and `max_position_embeddings`.

    Raises:
        InputError: the architecture has two rope scalings at once, which the format cannot state.
        ValueError: another note.
    """
    notes = dict(notes or {})
    tokens = {name: notes.pop(name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    length = {"max_position_embeddings": notes.pop("max_position_embeddings", _max_positions(config))}
    if notes:
        raise ValueError(f"notes={notes} have no place in config.json. Give token ids or max_position_embeddings.")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{name: config[key] for key, name in SIZE_KEYS.items()},
        "head_dim": config["hidden_dim"] // config["num_query_heads"],
        "hidden_act": "silu",
        "rms_norm_eps": config["layer_norm_epsilon"],
        "rope_theta": config["rope_max_wavelength"],
        "rope_scaling": _rope_scaling(config),
        "tie_word_embeddings": config["tie_word_embeddings"],
        "attention_bias": False,
        "mlp_bias": False,
        **{name: value for name, value in length.items() if value is not None},
        **tokens,  # also as null: transformers would take the ids of Llama 2 otherwise
        "torch_dtype": dtype,
    }


class _Problems:
    """What is wrong with one file, collected so that all of it is said at once."""

    def __init__(self, path: Path):
        self.path = path
        self.found: list[Problem] = []

    def add(self, what: str, found: str, action: str = "choose another checkpoint, or correct the file") -> None:
        self.found.append(Problem(what, str(self.path), found, action))

    def number(self, key: str, value, whole: bool = False):
        """The value if it is a positive number; else None, which is a problem unless the value is absent (None)."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or value <= 0:
            self.add(f"{key} must be a {'whole ' if whole else ''}number above 0", repr(value)[:80])
            return None
        return value

    def raise_any(self) -> None:
        if self.found:
            raise InputError(*self.found)


def _refuse_foreign(path: Path, document: dict) -> None:
    action = "give the folder of a Llama model in Hugging Face's format (config.json with model_type llama)"
    if document.get("model_type") != "llama":
        found = f"model_type={document.get('model_type')!r}"[:80]
        raise InputError(Problem("the checkpoint is not a Llama", str(path), found, action))
    architectures = document.get("architectures")
    named = architectures if isinstance(architectures, list) else [architectures]
    if architectures is not None and not any(isinstance(name, str) and name in ARCHITECTURES for name in named):
        what = "the checkpoint is not a causal language model"
        raise InputError(Problem(what, str(path), f"architectures={architectures!r}"[:80], action))


def _refuse_keys(document: dict, problems: _Problems) -> None:
    # transformers' own notes begin with an underscore: where the files came from, which kernel was chosen.
    unknown = sorted(key for key in document if key not in USED | IRRELEVANT | set(REFUSED) and key[:1] != "_")
    if unknown:
        names = ", ".join(repr(key)[1:-1][:60] for key in unknown[:NAMES_SHOWN]) + (
            " ..." if unknown[NAMES_SHOWN:] else ""
        )
        action = "a key that is not understood may change the model; remove it only if you know that it does not"
        problems.add(f"the configuration has {len(unknown)} unknown keys", names, action)
    for key, unused in REFUSED.items():
        value = document.get(key)
        full_attention = key == "layer_types" and isinstance(value, list) and set(map(str, value)) <= {"full_attention"}
        if key in document and not full_attention and not any(value == other for other in unused):
            problems.add(f"{key} is not supported", f"{key}={value!r}"[:80], "choose a checkpoint without it")


def _sizes(document: dict, problems: _Problems) -> dict:
    sizes = {
        key: problems.number(name, document.get(name), whole=True)
        for key, name in SIZE_KEYS.items()
        if name in document
    }
    if sizes.get("num_key_value_heads") is None:
        # Files from before grouped queries do not have the key, and transformers takes null for the same.
        sizes["num_key_value_heads"] = sizes.get("num_query_heads")
    absent = [
        SIZE_KEYS[key] for key in SIZE_KEYS if document.get(SIZE_KEYS[key]) is None and key != "num_key_value_heads"
    ]
    if absent:
        problems.add("the configuration is incomplete", f"no {', '.join(absent)}", "download the checkpoint again")
    return sizes


def _flag(document: dict, key: str, problems: _Problems) -> bool:
    value = document.get(key)
    if value is not None and not isinstance(value, bool):
        problems.add(f"{key} must be true or false", repr(value)[:80])
    return value is True


def _check_activation(document: dict, problems: _Problems) -> None:
    if document.get("hidden_act", "silu") not in ACTIVATIONS:
        problems.add("hidden_act must be silu", f"hidden_act={document['hidden_act']!r}"[:80])


def _check_head_dim(document: dict, config: dict, problems: _Problems) -> None:
    head_dim, implied = document.get("head_dim"), config["hidden_dim"] // config["num_query_heads"]
    if head_dim is not None and head_dim != implied:
        found = f"head_dim={head_dim!r}"[:60] + f", hidden_size / num_attention_heads = {implied}"
        problems.add("heads of another width than hidden_size / num_attention_heads are not supported", found)


def _rope(document: dict, problems: _Problems) -> dict:
    """The arguments of rotary embedding from whichever layouts the file has; two must agree."""
    thetas, scalings = [document.get("rope_theta")], {}
    for layout in ("rope_scaling", "rope_parameters"):
        entry = document.get(layout)
        if entry in (None, {}):
            continue
        if not isinstance(entry, dict):
            problems.add(f"{layout} must be an object or null", repr(entry)[:80])
            continue
        thetas.append(entry.get("rope_theta"))
        scalings[layout] = _scaling(document, layout, entry, problems)
    stated = [value for value in thetas if problems.number("rope_theta", value) is not None]
    if len(set(stated)) > 1:
        problems.add("rope_theta is stated twice and differs", " and ".join(map(str, stated)))
    if len(scalings) == 2 and scalings["rope_scaling"] != scalings["rope_parameters"]:
        found = f"{document['rope_scaling']} and {document['rope_parameters']}"[:200]
        problems.add("rope_scaling and rope_parameters disagree", found)
    arguments = {"rope_max_wavelength": stated[0]} if stated else {}
    for scaling in scalings.values():
        arguments |= scaling
    return arguments


def _scaling(document: dict, layout: str, entry: dict, problems: _Problems) -> dict:
    entry = {key: value for key, value in entry.items() if value is not None}
    rope_type = entry.get("rope_type", entry.get("type", "default"))
    if entry.get("type", rope_type) != rope_type or rope_type not in tuple(ROPE_TYPES):
        found = f"rope_type={rope_type!r}, type={entry.get('type')!r}"[:80]
        problems.add(f"{layout} has a type that is not supported", found, f"supported: {', '.join(ROPE_TYPES)}")
        return {}
    unknown = sorted(key for key in entry if key not in ROPE_TYPES[rope_type] | ROPE_COMMON)
    if unknown or entry.get("partial_rotary_factor", 1) != 1:
        found = ", ".join(f"{key}={entry[key]!r}"[:60] for key in unknown[:NAMES_SHOWN] or ["partial_rotary_factor"])
        problems.add(f"{layout} of type {rope_type} has keys that are not supported", found)
    if rope_type == "llama3":
        length = "original_max_position_embeddings"
        outside = document.get(length)
        entry.setdefault(length, document.get("max_position_embeddings") if outside is None else outside)
        if outside not in (None, entry[length]):
            problems.add(f"{length} is stated twice and differs", f"{outside} and {entry[length]} in {layout}"[:80])
    absent = sorted(key for key in ROPE_TYPES[rope_type] if entry.get(key) is None)
    if absent:
        problems.add(f"{layout} of type {rope_type} is incomplete", f"no {', '.join(absent)}")
    values = {
        key: problems.number(f"{layout}.{key}", entry.get(key), whole=key == "original_max_position_embeddings")
        for key in ROPE_TYPES[rope_type]
    }
    if rope_type == "llama3":
        return {argument: values[key] for argument, key in ROPE_KEYS.items()}
    return {"rope_position_scaling_factor": values["factor"]} if rope_type == "linear" else {}


def _rope_scaling(config: Mapping) -> dict | None:
    adjustment = {name: config[key] for key, name in ROPE_KEYS.items()}
    if adjustment["factor"] is not None:
        if config["rope_position_scaling_factor"] != 1:
            what = "a Hugging Face checkpoint cannot hold both position scaling and Llama 3.1's frequency adjustment"
            found = f"{config['rope_position_scaling_factor']}, rope_frequency_adjustment_factor={adjustment['factor']}"
            action = "keep the model in KerasHub's format"
            raise InputError(Problem(what, "rope_position_scaling_factor", found, action))
        return {"rope_type": "llama3", **adjustment}
    if config["rope_position_scaling_factor"] != 1:
        # Newer versions also read `type`; those before 4.43 read nothing else, and refuse a third key.
        return {"type": "linear", "factor": config["rope_position_scaling_factor"]}
    return None


def _max_positions(config: Mapping) -> int | None:
    """The context length that Llama 3.1's adjustment stretches the pretraining length to; unknown without."""
    if config["rope_frequency_adjustment_factor"] is None:
        return None
    return math.ceil(config["rope_pretraining_sequence_length"] * config["rope_frequency_adjustment_factor"])
