"""A config as plain data, and the hash that says which runs are the same experiment.

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
from collections.abc import Mapping
from typing import Any

from llama_exp.config.schema import Config

# Changing these cannot change the result: same hash, same science.
NOT_SCIENCE = ("runtime", "logger", "name", "resume", "debug", "trusted_modules")


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


def config_hash(config: Config) -> str:
    """SHA-256 (hexadecimal) of the parts of a config that decide its result."""
    science = {key: value for key, value in to_dict(config).items() if key not in NOT_SCIENCE}
    del science["preset"]["offline"]  # where the same preset is taken from
    canonical = json.dumps(science, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
