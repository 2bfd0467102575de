"""A config as plain data, what a run's record says, and the hash that says which runs are the same experiment.

What the same hash promises:

    always                                          the same data in the same order, the same weights to begin with
                                                    (drawn by NumPy), the same computation
    same runtime, machine and versions              the same bits to the end
    otherwise, without dropout                      losses that agree to the rounding of sums

Masks of dropout and sampled text are each backend's own draws.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from llama_exp import recipe
from llama_exp.architecture import AS_STORED, MODES
from llama_exp.config.schema import Config
from llama_exp.limits.dataset import ChatTemplate

RECIPE = "recipe"
# Changing these cannot change the result: same hash, same science.
NOT_SCIENCE = (
    *("runtime", "logger", "evaluation", "protocol", "name"),
    *("objective_metric", "resume", "branch_from", "debug", "trusted_modules"),
)
NOT_SCIENCE_KEYS = (
    *("preset.offline", "trainer.keep_optimizer", "trainer.profile_steps"),
    *("trainer.budget_flops", "trainer.budget_tokens"),  # max_steps holds what they buy
)
# What a run may change when it goes on: how long, how often, how it is watched and where it runs.
MAY_CHANGE = re.compile(
    r"(runtime|logger|evaluation|protocol)\..*|name|objective_metric|resume|branch_from|debug"
    r"|trusted_modules.*|preset\.offline"
    r"|trainer\.(max_steps|\w+_every_steps|keep_checkpoints|validation_batches|sample_\w+|callbacks.*)"
    r"|trainer\.budget_(flops|tokens)"
    r"|trainer\.(export|keep_optimizer|stop_early|patience|min_delta|profile_steps)"
    r"|recipe\.sampling\..*"
)
# Keys of section `trainer` that name a figure by which a run is decided.
DECIDING_FIGURES = ("keep_best", "stop_early")
# Keys that are younger than the first runs -> the value under which a run is what it was without them. There the hashes
# leave them out, so that an older run is found again and goes on.
YOUNGER: dict[str, Any] = {
    "objective.z_loss": 0.0,
    "schedule.decay_shape": "linear",
    "trainer.keep_best": None,
    "trainer.export": "last",
    "trainer.stop_early": None,
    "trainer.overfit_below": None,
    "lora.learning_rate_ratio": 1.0,
    "optimizer.independent_weight_decay": False,
    "model.parametrization": "standard",
    "model.train_norms": True,
    "evaluation.at_start": False,
}
# Younger keys that mean something only beside another one.
BESIDE = {
    "trainer.patience": "trainer.stop_early",
    "trainer.min_delta": "trainer.stop_early",
    "model.base_hidden_dim": "model.parametrization",
    "model.base_head_dim": "model.parametrization",
}
LENGTH = "trainer.max_steps"
# What conf/schedule states as a share of the length, so that it changes with it.
FOLLOWS_LENGTH = re.compile(r"schedule\.(warmup|decay)_steps")


def to_dict(node: Any) -> Any:
    """A config, or a section of one, as plain dicts, lists and scalars; enum members become their value."""
    if dataclasses.is_dataclass(node):
        return {field.name: to_dict(getattr(node, field.name)) for field in dataclasses.fields(node)}
    if isinstance(node, dict):
        return {key: to_dict(value) for key, value in node.items()}
    if isinstance(node, list):
        return [to_dict(value) for value in node]
    return node.value if isinstance(node, enum.Enum) else node


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one level with dotted keys; lists and empty sections are values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return flat


def to_record(config: Config) -> dict[str, Any]:
    """What config.yaml holds: every key, and under `recipe` the numbers of algorithms that are no keys.

    A number is there where the run uses its algorithm, so that a release which changes it changes no other run.
    """
    used = {name: dict(getattr(recipe, name.upper())) for name, is_used in _USED.items() if is_used(config)}
    return to_dict(config) | {RECIPE: used}


def is_science(key: str) -> bool:
    """Whether a dotted key is part of what `config_hash` covers."""
    return key.partition(".")[0] not in NOT_SCIENCE and key not in NOT_SCIENCE_KEYS


def config_hash(config: Config) -> str:
    """SHA-256 (hexadecimal) of what decides a run's result."""
    record = to_record(config)
    science = {key: value for key, value in record.items() if key not in NOT_SCIENCE}
    if evaluation_decides(config):
        science["evaluation"] = record["evaluation"]
    for path in (*NOT_SCIENCE_KEYS, *list_unused(flatten(record))):
        section, _, key = path.partition(".")
        science.get(section, {}).pop(key, None)  # a section that decides nothing is not there
    return _digest(science)


def evaluation_decides(config: Config) -> bool:
    """Whether a figure of the run's evaluations says when it ends, or which weights it leaves."""
    figures = [getattr(config.trainer, key, None) or "" for key in DECIDING_FIGURES]
    return any(figure.startswith("evaluation.") for figure in figures)


def continuation_hash(config: Config) -> str:
    """SHA-256 (hexadecimal) of what a run cannot change when it goes on: the same for a run and a longer one."""
    values, may_differ = flatten(to_record(config)), (MAY_CHANGE, FOLLOWS_LENGTH)
    unused = set(list_unused(values))
    fixed = {key: value for key, value in values.items() if key not in unused}
    return _digest({key: value for key, value in fixed.items() if not any(keys.fullmatch(key) for keys in may_differ)})


def list_unused(values: Mapping[str, Any]) -> list[str]:
    """Younger keys of a flat config that leave the run what it was without them."""
    unused = [key for key, value in YOUNGER.items() if key in values and values[key] == value]
    return unused + [key for key, other in BESIDE.items() if key in values and other in unused]


def is_same_share(old: object, old_length: object, new: object, new_length: object) -> bool:
    """Whether one fraction, rounded down (or up to 1), gives `old` of `old_length` steps and `new` of `new_length`.

    So a warm-up that follows the length is told from one that somebody stated anew, in the numbers of a record alone.
    """
    numbers = (old, old_length, new, new_length)
    if not all(type(number) is int for number in numbers):
        return False
    pairs: list[tuple[int, int]] = [(old, old_length), (new, new_length)]  # type: ignore[list-item]
    if not all(0 <= steps <= length > 0 for steps, length in pairs):
        return False
    low = max(0.0 if steps <= 1 else steps / length for steps, length in pairs)
    return low <= min((steps + 1) / length for steps, length in pairs)


def _digest(record: Mapping[str, Any]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _builds(section: str, *names: str) -> Callable[[Config], bool]:
    """Whether a section's target is one of `names`."""
    targets = {f"llama_exp.{section}.{name}" for name in names}
    return lambda config: getattr(getattr(config, section), "_target_", None) in targets


def _trains_byte_pairs(config: Config) -> bool:
    own = _builds("tokenizer", "bpe")(config)
    return own or (_builds("tokenizer", "auto")(config) and config.preset.source is None)


def _writes_as_the_model(config: Config) -> bool:
    return _builds("dataset", "Jsonl")(config) and to_dict(config.dataset)["chat_template"] == ChatTemplate.model.value


def _drops(config: Config) -> bool:
    return config.lora.dropout > 0 or to_dict(config.model).get("dropout") != 0.0


# Name of a table of `recipe` -> whether a run uses its algorithm.
_USED: dict[str, Callable[[Config], bool]] = {
    "python_code": _builds("dataset", "PythonCode"),
    "python_docs": _builds("dataset", "PythonDocs"),
    "python_qa": _builds("dataset", "PythonQA"),
    "text_files": _builds("dataset", "TextFiles"),
    "jsonl": _builds("dataset", "Jsonl"),
    "model_chats": _writes_as_the_model,
    "long_texts": _builds("dataset", "TextFiles", "Jsonl", "Tfds"),
    "rows": _builds("dataset", "PythonCode", "PythonDocs", "PythonQA", "TextFiles", "Jsonl", "Tfds"),
    "byte_pair_training": _trains_byte_pairs,
    "example_order": lambda config: True,
    "initial_values": lambda config: True,
    "dropout": _drops,
    "loss_scale": lambda config: to_dict(config.precision.policy) == "mixed_float16",
    "newton_schulz": _builds("optimizer", "muon"),
    "sample_prompts": lambda config: config.trainer.sample_prompts is None,
    "sampling": lambda config: config.trainer.sample_prompts != [] and config.trainer.sample_temperature > 0,
    "rounding": lambda config: config.quantization.mode in (*MODES, AS_STORED),
    "int4_search": lambda config: config.quantization.mode == "int4",
    "importance": lambda config: config.quantization.mode == "int4",
    "gptq": lambda config: bool(config.quantization.gptq),
}
