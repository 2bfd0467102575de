"""The sections of a run's config that say which matrices it trained, and from what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from llama_exp.architecture import CONFIG_KEYS, DEFAULTS, INITIALIZER_RANGES, PARAMETRIZATION
from llama_exp.errors import InputError
from llama_exp.limits.precision import Policy
from llama_exp.results import RunResult

OUR_MODEL = "llama_exp.models.LlamaBackbone"
_NEEDED = ("model", "lora", "preset", "precision", "quantization")


@dataclass(frozen=True)
class Sections:
    """What a run's config.yaml says.

    model: every constructor argument of the backbone. lora, quantization: the sections. preset: its source; None:
    random weights. dtype: of the model's floating-point variables. seed: of the run.
    """

    model: Mapping[str, Any]
    lora: Mapping[str, Any]
    quantization: Mapping[str, Any]
    preset: str | None
    dtype: np.dtype
    seed: int

    @property
    def method(self) -> str:
        """full, lora or dora."""
        return "full" if self.lora["rank"] == 0 else "dora" if self.lora["use_dora"] else "lora"


def read_sections(run: RunResult) -> Sections:
    """The sections of a run.

    Raises:
        InputError: the config lacks them, or the model is a class of the user's own.
    """
    config, where = run.config, run.folder / "config.yaml"
    missing = [name for name in _NEEDED if not isinstance(config.get(name), Mapping)]
    if missing or not isinstance(config.get("seed"), int):
        found = f"no section {', '.join(missing)}" if missing else f"seed={config.get('seed')!r}"
        raise InputError.about(where, "the run's config cannot be read", found, "restore the file")
    model, preset = config["model"], config["preset"]
    if model.get("_target_") != OUR_MODEL:
        action = f"only {OUR_MODEL} can be inspected, whose matrices are known by name"
        raise InputError.about(where, "the run's model is a class of its own", str(model.get("_target_"))[:80], action)
    known = DEFAULTS | INITIALIZER_RANGES | PARAMETRIZATION
    stated = {key: value for key, value in model.items() if key in CONFIG_KEYS or key in known}
    policy = config["precision"].get("policy")
    dtype = ml_dtypes.bfloat16 if policy == Policy.bfloat16.value else np.float32
    return Sections(
        known | stated,
        config["lora"],
        config["quantization"],
        preset.get("source") if preset.get("load_weights", True) else None,
        np.dtype(dtype),
        config["seed"],
    )
