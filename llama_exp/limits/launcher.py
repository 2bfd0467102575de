"""What the launcher of a sweep's jobs accepts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_exp.errors import Problem
from llama_exp.limits import COUNT, COUNT_OR_ZERO, POSITIVE, Limit, Limits, allow_from, allow_null

RESUME = ("none", "auto")  # whether a sweep goes on that was begun in its folder
ON_FAILED = ("retry", "skip")  # what a sweep that goes on does with the jobs that failed
# CUDA's names of whole devices and of parts of one; https://docs.nvidia.com/cuda/cuda-c-programming-guide (environment
# variables)
_DEVICE = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]+")


def _are_devices(value: Any) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    return is_list and all(
        _DEVICE.fullmatch(item) if isinstance(item, str) else COUNT_OR_ZERO.accepts(item) for item in value
    )


def _one_of(names: Sequence[str]) -> Limit:
    return Limit(lambda value: value in names, f"one of {', '.join(names)}")


_SWITCH = Limit(lambda value: isinstance(value, bool), "true or false")
_NAME = Limit(
    lambda value: isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value) is not None,
    "the dotted name of a class",
)
LIMITS = Limits(
    "hydra.launcher",
    {
        "app": allow_null(_NAME),
        "resume": _one_of(RESUME),
        "n_jobs": allow_null(COUNT),
        "devices": allow_null(Limit(_are_devices, "a list of device numbers, [0,1], or of names, [GPU-8932f937]")),
        "start_delay_seconds": allow_from(0),
        "job_timeout_seconds": allow_null(POSITIVE),
        "memory_limit_gb": allow_null(POSITIVE),
        "on_failed": _one_of(ON_FAILED),
        "extend": _SWITCH,
        "stop_on_failure": _SWITCH,
    },
)


def find_launcher_problems(node: Mapping[str, Any]) -> Iterator[Problem]:
    """A problem for each impossible value in the node `hydra.launcher` of the launcher `processes`, as plain values."""
    return LIMITS.value_problems({key: value for key, value in node.items() if key in LIMITS.values})
