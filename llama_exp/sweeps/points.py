"""The points of a sweep that goes on, beside those that it was begun with: the same, more, or others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.config.sweep_point import Point
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.json_text import plain
from llama_exp.sweeps.record import ABSENT, Entry, Record, join_common

MOST_SHOWN = 5
UNDO = "undo the edit, or begin a new sweep with resume=none in another folder"
EXTEND = f"{UNDO}; to add the new points to this one: hydra.launcher.extend=true"


@dataclass(frozen=True)
class Match:
    """Which point is which job. jobs: (entry, its point now). added: points of no entry. gone: entries of no point."""

    jobs: list[tuple[Entry, Point]]
    added: list[Point]
    gone: list[Entry]


def match_points(entries: Sequence[Entry], points: Sequence[Point]) -> Match:
    """Pairs of the same identity; where several have it, those of the same overrides first, then in their order."""
    left: dict[str, list[Entry]] = {}
    for entry in entries:
        left.setdefault(entry.identity, []).append(entry)
    found: dict[int, Entry] = {}
    for is_spelled_alike in (True, False):
        for index, point in enumerate(points):
            same = [entry for entry in left.get(point.identity, []) if index not in found]
            alike = [entry for entry in same if entry.overrides == point.overrides or not is_spelled_alike]
            if alike:
                found[index] = alike[0]
                left[point.identity].remove(alike[0])
    jobs = [(found[index], point) for index, point in enumerate(points) if index in found]
    added = [point for index, point in enumerate(points) if index not in found]
    return Match(jobs, added, [entry for entries_left in left.values() for entry in entries_left])


def require_same(record: Record, match: Match, sweep_dir: Path, extend: bool) -> None:
    """Raises ConfigError, with the difference, unless the points are the record's, or more than these on request."""
    if not match.gone and (extend or not match.added):
        return
    by_overrides = {entry.overrides: entry for entry in match.gone}
    changed = [(by_overrides[point.overrides], point) for point in match.added if point.overrides in by_overrides]
    renamed = {entry.overrides for entry, _ in changed}
    added = [point.overrides for point in match.added if point.overrides not in renamed]
    gone = [entry.overrides for entry in match.gone if entry.overrides not in renamed]
    counts = [("added", added), ("gone", gone), ("changed", [entry.overrides for entry, _ in changed])]
    found = "; ".join(f"{len(some)} {word}: {_list(some)}" for word, some in counts if some)
    what = f"the sweep in {sweep_dir} was begun with other points"
    action = EXTEND if added and not gone and not changed else UNDO
    raise ConfigError(Problem(what, "hydra.sweep.dir", found, action), *_changes(record, changed))


def _changes(record: Record, changed: Sequence[tuple[Entry, Point]]) -> list[Problem]:
    """One problem for each key that another value stands in, with the points that have it."""
    with_it: dict[tuple[str, str, str], list[tuple[str, ...]]] = {}
    for entry, point in changed:
        before = join_common(record.common, entry.differs)
        now: Mapping[str, Any] = plain(dict(point.config))
        for key in sorted(before.keys() | now.keys()):
            old, new = before.get(key, ABSENT), now.get(key, ABSENT)
            if old != new:
                with_it.setdefault((key, str(old), str(new)), []).append(point.overrides)
    return [
        Problem(f"is another value than when the sweep began, at {_list(points)}", key, f"{new}, before {old}", UNDO)
        for (key, old, new), points in list(with_it.items())[: 2 * MOST_SHOWN]
    ]


def _list(points: Sequence[tuple[str, ...]]) -> str:
    shown = [" ".join(point) or "no overrides" for point in points[:MOST_SHOWN]]
    more = f" and {len(points) - MOST_SHOWN} more" if len(points) > MOST_SHOWN else ""
    return ", ".join(shown) + more
