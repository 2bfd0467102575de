"""What of a config decides a result, and which values of a key are equal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from llama_exp.config.identity import YOUNGER, is_science, list_unused
from llama_exp.sweeps.record import ABSENT

SEED = "seed"
_LARGEST = int(sys.float_info.max)


def canonical(value: Any) -> str:
    """The value as a text that equal values share: 1 and 1.0 are equal, true and 1 are not."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    number = number and (isinstance(value, float) or abs(value) <= _LARGEST)
    return json.dumps(float(value) if number else value, sort_keys=True, default=str)


def keep_decisive(values: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the result but for the seed; runs from before a key that they do not use are equal to later ones."""
    unused = set(list_unused(values))
    return {key: value for key, value in values.items() if is_science(key) and key != SEED and key not in unused}


def find_setting(values: Mapping[str, Any], path: str) -> Any:
    """The value of a key; of a run from before a key there was the one that leaves it as it was; else `ABSENT`."""
    return values.get(path, YOUNGER.get(path, ABSENT))


def name_config(values: Mapping[str, Any]) -> str:
    """A text that two runs share when only their seed, or nothing that decides, differs."""
    return json.dumps({key: canonical(value) for key, value in keep_decisive(values).items()}, sort_keys=True)
