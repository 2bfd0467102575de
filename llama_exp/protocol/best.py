"""Each arm at its best setting: of several learning rates the one with the best mean over seeds.

The same runs choose the setting and are compared at it, which flatters an arm with more settings or more noise. Where
arms have the same settings, as in a grid, it flatters both alike.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_exp.limits.estimators import BEST_BY
from llama_exp.limits.figures import Direction
from llama_exp.protocol.obtained import ALL, NotSeen, Observation
from llama_exp.results.decisive import canonical

_Groups = dict[str, list[Observation]]  # setting as a text -> runs


@dataclass(frozen=True)
class Choice:
    """over: key of the config whose values are the settings. direction: which values of `best_by` are good.

    names: argument -> quantity. pair_by: keys besides the seed.
    """

    over: str
    direction: Direction | None
    names: Mapping[str, str]
    pair_by: Sequence[str]


def keep_best(
    arm: str, members: Sequence[Observation], choice: Choice, settings: Mapping[int, Any]
) -> tuple[list[Observation], list[str]]:
    """The runs at the best setting of each cell, which are those alike in other quantities and pairing keys.

    Args:
        arm: its name.
        members: its runs, with `best_by`; one that diverged is worse than all others.
        choice: what is chosen, and how.
        settings: run -> its value of `choice.over`.

    Returns:
        The runs, and a sentence for each cell.

    Raises:
        NotSeen: a cell has one setting only, or runs diverged at each.
    """
    cells: dict[tuple[str, ...], _Groups] = {}
    for one in members:
        others = [f"{choice.names[name]}={one.values[name]:g}" for name in choice.names if name not in ("y", BEST_BY)]
        others += [f"{key}={value}" for key, value in zip(choice.pair_by, one.block[1:], strict=True)]
        cell = cells.setdefault(tuple(others), {})
        cell.setdefault(canonical(settings[one.run]), []).append(one)
    kept, notes = list[Observation](), list[str]()
    for parts, groups in cells.items():
        label = " ".join([*([] if arm == ALL else [arm]), *parts]) or "all runs"
        best = _choose(label, groups, choice)
        kept += groups[best]
        edge = ", at the edge of those that were run" if _is_edge(groups, best, settings) else ""
        notes.append(f"{label}: best at {choice.over}={best}{edge}.")
    return kept, notes


def _choose(label: str, groups: _Groups, choice: Choice) -> str:
    if len(groups) < 2:
        raise NotSeen(f"{label}: {choice.over} has one value only, and there is no best one to choose")
    sign = -1.0 if choice.direction is Direction.maximize else 1.0
    means = {text: statistics.fmean(_worst_last(one, sign) for one in group) for text, group in groups.items()}
    best = min(means, key=lambda text: means[text])
    if math.isinf(means[best]):
        raise NotSeen(f"{label}: runs diverged at every {choice.over}")
    return best


def _worst_last(one: Observation, sign: float) -> float:
    value = one.values[BEST_BY]
    return sign * value if math.isfinite(value) else math.inf


def _is_edge(groups: _Groups, best: str, settings: Mapping[int, Any]) -> bool:
    """Whether a setting that is a number is the first or last of those that were run."""
    tried = {text: settings[group[0].run] for text, group in groups.items()}
    numbers = [value for value in tried.values() if isinstance(value, int | float)]
    return len(numbers) == len(tried) and tried[best] in (min(numbers), max(numbers))
