"""Each arm at its best setting: of several learning rates the one with the best mean over seeds.

The same runs choose the setting and are compared at it, which flatters an arm with more settings or more noise. Where
arms have the same settings, as in a grid, it flatters both alike.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from llama_exp.limits.estimators import BEST_BY
from llama_exp.limits.figures import Direction
from llama_exp.protocol.obtained import ALL, NotSeen, Observation
from llama_exp.results.decisive import canonical

_Groups = dict[str, list[Observation]]  # setting as a text -> runs


def keep_best(
    arm: str, members: Sequence[Observation], over: str, settings: Mapping[int, Any], direction: Direction | None
) -> tuple[list[Observation], list[str]]:
    """The runs at the best setting of each cell, which are those alike in other quantities and pairing keys.

    Args:
        arm: its name.
        members: its runs, with `best_by`; one that diverged is worse than all others.
        over: key of the config whose values are the settings.
        settings: run -> its value.
        direction: which values of `best_by` are good.

    Returns:
        The runs, and a sentence for each cell.

    Raises:
        NotSeen: a cell has one setting only, or runs diverged at each.
    """
    cells: dict[tuple[Any, ...], _Groups] = {}
    for one in members:
        others = tuple(value for name, value in one.values.items() if name not in ("y", BEST_BY))
        cell = cells.setdefault((*others, *one.block[1:]), {})
        cell.setdefault(canonical(settings[one.run]), []).append(one)
    kept, notes = list[Observation](), list[str]()
    for names, groups in cells.items():
        label = " ".join([*([] if arm == ALL else [arm]), *map(str, names)]) or "all runs"
        best = _choose(label, groups, over, -1.0 if direction is Direction.maximize else 1.0)
        kept += groups[best]
        edge = ", at the edge of those that were run" if _is_edge(groups, best, settings) else ""
        notes.append(f"{label}: best at {over}={best}{edge}.")
    return kept, notes


def _choose(label: str, groups: _Groups, over: str, sign: float) -> str:
    if len(groups) < 2:
        raise NotSeen(f"{label}: {over} has one value only, and there is no best one to choose")
    means = {text: statistics.fmean(_worst_last(one, sign) for one in group) for text, group in groups.items()}
    best = min(means, key=lambda text: means[text])
    if math.isinf(means[best]):
        raise NotSeen(f"{label}: runs diverged at every {over}")
    return best


def _worst_last(one: Observation, sign: float) -> float:
    value = one.values[BEST_BY]
    return sign * value if math.isfinite(value) else math.inf


def _is_edge(groups: _Groups, best: str, settings: Mapping[int, Any]) -> bool:
    """Whether a setting that is a number is the first or last of those that were run."""
    tried = {text: settings[group[0].run] for text, group in groups.items()}
    numbers = [value for value in tried.values() if isinstance(value, int | float)]
    return len(numbers) == len(tried) and tried[best] in (min(numbers), max(numbers))
