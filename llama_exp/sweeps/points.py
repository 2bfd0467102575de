"""The points of a sweep that goes on, beside those that it was begun with: the same, more, or others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.config.sweep_point import Point
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.json_text import plain
from llama_exp.sweeps.record import ABSENT, Entry, Record, identify, join_common

MOST_SHOWN = 5
# What no identity of llama_exp counts; in another application these keys are rare, and the points are told anyway.
MAY_CHANGE = re.compile(r"(runtime|logger|protocol|resume|debug)(\.|$)")
UNDO = "undo the edit, or begin a new sweep with resume=none in another folder"
EXTEND = f"{UNDO}; to add the new points to this one: hydra.launcher.extend=true"


@dataclass(frozen=True)
class Match:
    """Which point is which job. jobs: (entry, its point now). added: points of no entry. gone: entries of no point."""

    jobs: list[tuple[Entry, Point]]
    added: list[Point]
    gone: list[Entry]


def match_points(entries: Sequence[Entry], points: Sequence[Point]) -> Match:
    """Pairs of the same identity; no two points have the same."""
    by_identity = {entry.identity: entry for entry in entries}
    jobs = [(by_identity[point.identity], point) for point in points if point.identity in by_identity]
    added = [point for point in points if point.identity not in by_identity]
    found = {entry.number for entry, _ in jobs}
    return Match(jobs, added, [entry for entry in entries if entry.number not in found])


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


def require_same_base(record: Record, points: Sequence[Point]) -> None:
    """Raises ConfigError unless the point that stands for all of a search is the one that it was begun with."""
    if record.identity != identify(record.space, [point.identity for point in points]):
        changes = [change for point in points for change in _find_changes(record.common, point)]
        problems = [_changed(key, old, new, "") for key, old, new in changes]
        what, found = "the search in this folder was begun with another job", "a job with another hash"
        raise ConfigError(*problems or [Problem(what, "hydra.sweep.dir", found, UNDO)])


def _changes(record: Record, changed: Sequence[tuple[Entry, Point]]) -> list[Problem]:
    """One problem for each key that another value stands in, with the points that have it."""
    with_it: dict[tuple[str, str, str], list[tuple[str, ...]]] = {}
    for entry, point in changed:
        for change in _find_changes(join_common(record.common, entry.differs), point):
            with_it.setdefault(change, []).append(point.overrides)
    return [_changed(*change, f", at {_list(points)}") for change, points in list(with_it.items())[: 2 * MOST_SHOWN]]


def _find_changes(before: Mapping[str, Any], point: Point) -> Iterator[tuple[str, str, str]]:
    """Each key that differs, with its values before and now."""
    now: Mapping[str, Any] = plain(dict(point.config))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key, ABSENT) != now.get(key, ABSENT) and not MAY_CHANGE.match(key):
            yield key, str(before.get(key, ABSENT)), str(now.get(key, ABSENT))


def _changed(key: str, old: str, new: str, where: str) -> Problem:
    return Problem(f"is another value than when the sweep began{where}", key, f"{new}, before {old}", UNDO)


def _list(points: Sequence[tuple[str, ...]]) -> str:
    shown = [" ".join(point) or "no overrides" for point in points[:MOST_SHOWN]]
    more = f" and {len(points) - MOST_SHOWN} more" if len(points) > MOST_SHOWN else ""
    return ", ".join(shown) + more
