"""What the ranking figure is over each key, and all keys side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llama_exp.limits.figures import Direction
from llama_exp.report.contents import (
    Axis,
    CoordinateLine,
    Coordinates,
    Effect,
    EffectLine,
    EffectPoint,
    Figure,
    Group,
    Key,
    ReportedRun,
    Scale,
)
from llama_exp.report.grouping import format_setting, label_group
from llama_exp.results.decisive import canonical
from llama_exp.sweeps.record import ABSENT


def list_effects(
    runs: Sequence[ReportedRun], groups: Sequence[Group], keys: Sequence[Key], figure: Figure
) -> tuple[Effect, ...]:
    """One effect for each key: lines of groups that are equal in all other keys."""
    effects = []
    for key in keys:
        others = [other for other in keys if other is not key]
        lines: dict[str, list[EffectPoint]] = {}
        for group in (group for group in groups if figure.path in group.estimates):
            values = tuple(runs[number - 1].figures[figure.path] for number in group.runs)
            point = EffectPoint(group.values[key.path], group.number, group.estimates[figure.path], group.runs, values)
            lines.setdefault(label_group(group.values, others) if others else "", []).append(point)
        order = {canonical(value): position for position, value in enumerate(key.values)}
        sorted_lines = (
            EffectLine(label, tuple(sorted(points, key=lambda point: order[canonical(point.value)])))
            for label, points in lines.items()
        )
        effects.append(Effect(key, tuple(sorted_lines)))
    return tuple(effect for effect in effects if effect.lines)


def make_coordinates(runs: Sequence[ReportedRun], keys: Sequence[Key], figure: Figure) -> Coordinates | None:
    """A line for each run that is averaged; None where fewer than two keys or runs differ."""
    counted = [run for run in runs if run.reason is None]
    if len(keys) < 2 or len(counted) < 2:
        return None
    values = [run.figures[figure.path] for run in counted]
    low, high = min(values), max(values)
    is_reversed = figure.direction is Direction.minimize
    ends = ((1.0 if is_reversed else 0.0, f"{low:.4g}"), (0.0 if is_reversed else 1.0, f"{high:.4g}"))
    axes = [*(_make_axis(key) for key in keys), Axis(figure.path, figure.label, Scale.linear, ends)]
    lines = []
    for run, value in zip(counted, values, strict=True):
        share = (value - low) / (high - low) if high > low else 0.5
        positions = [*(place_value(key, run.values[key.path]) for key in keys), 1.0 - share if is_reversed else share]
        lines.append(CoordinateLine(run.number, run.group, tuple(positions), value))
    return Coordinates(tuple(axes), tuple(lines))


def place_value(key: Key, value: Any) -> float | None:
    """Where a value of a key lies on its axis, from 0 to 1; None: the run lacks the key."""
    if value == ABSENT:
        return None
    if key.scale is Scale.categories:
        present = [canonical(other) for other in key.values if other != ABSENT]
        return present.index(canonical(value)) / (len(present) - 1) if len(present) > 1 else 0.5
    low, high, own = float(key.values[0]), float(key.values[-1]), float(value)
    if key.scale is Scale.log:
        low, high, own = math.log(low), math.log(high), math.log(own)
    return (own - low) / (high - low)


def _make_axis(key: Key) -> Axis:
    placed = [(place_value(key, value), format_setting(value)) for value in key.values]
    ticks = tuple((position, text) for position, text in placed if position is not None)
    return Axis(key.path, key.label, key.scale, ticks)
