"""One point of a sweep, as the frontier finds it and a manifest records it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """One job of a sweep before it has a number.

    overrides: `key=value`, those that differ between the points, as Hydra's sweeper spells them. identity: a hash of
    what decides the job; the same for the same job. config: all resolved values by dotted key. folder_as: its number
    in the sweep -> its folder, relative to the sweep's.
    """

    overrides: tuple[str, ...]
    identity: str
    config: Mapping[str, Any]
    folder_as: Callable[[int], str]
