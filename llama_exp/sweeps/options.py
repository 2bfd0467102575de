"""The launcher's keys, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from llama_exp.errors import ConfigError
from llama_exp.limits.launcher import find_launcher_problems


@dataclass(frozen=True)
class Options:
    """What conf/hydra/launcher/processes.yaml explains key by key."""

    app: str | None = None
    resume: str = "none"
    n_jobs: int | None = None
    devices: tuple[int | str, ...] | None = None
    start_delay_seconds: float = 0.0
    job_timeout_seconds: float | None = None
    memory_limit_gb: float | None = None
    on_failed: str = "retry"
    extend: bool = False
    stop_on_failure: bool = False

    @classmethod
    def make(cls, node: Mapping[str, Any]) -> Options:
        """The options of a config's node, as plain values.

        Raises:
            ConfigError: with every impossible value.
        """
        problems = list(find_launcher_problems(node))
        if problems:
            raise ConfigError(*problems)
        given = {item.name: node[item.name] for item in fields(cls) if item.name in node}
        if given.get("devices") is not None:
            given["devices"] = tuple(given["devices"])
        return cls(**given)
