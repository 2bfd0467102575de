"""What a sweep's record says when it begins, and when it goes on: with the same points, or with more."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_exp.config.sweep_point import Point
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.redact import redact_arguments
from llama_exp.sweeps import journal
from llama_exp.sweeps.points import UNDO, match_points, require_same, require_same_base
from llama_exp.sweeps.record import Entry, Record, entry_from, identify, join_common, split_common

log = logging.getLogger(__name__)


def mask(points: Iterable[Point]) -> list[Point]:
    """The points without secrets in their overrides.

    Raises:
        ConfigError: two of them differ in a secret only, so that no record could tell them apart.
    """
    unique = {point.overrides: point for point in points}
    masked = [dataclasses.replace(point, overrides=tuple(redact_arguments(lines))) for lines, point in unique.items()]
    if len({point.overrides for point in masked}) < len(masked):
        what = "jobs of a sweep cannot differ in a secret only: no record would tell them apart"
        raise ConfigError(Problem(what, "command line", " ".join(masked[0].overrides), "let another key differ too"))
    return masked


def drop_same(points: Iterable[Point]) -> list[Point]:
    """The first of each identity."""
    unique: dict[str, Point] = {}
    for point in points:
        unique.setdefault(point.identity, point)
    return list(unique.values())


def begin_record(points: Sequence[Point], facts: Mapping[str, Any], space: Mapping[str, str] | None) -> Record:
    """The record of a new sweep: its points get their numbers in their order.

    Args:
        points: masked, none twice; of a search one that stands for all.
        facts: how it was started.
        space: of a search.

    Raises:
        ConfigError: two jobs would share a folder.
    """
    identity = identify(space, [point.identity for point in points])
    common, differs = split_common([point.config for point in points])
    entries = () if space is not None else tuple(map(_entry, range(len(points)), points, differs))
    _require_own_folders(entries)
    return Record(journal.now(), dict(facts), space, common, entries, identity)


def go_on_record(
    record: Record,
    points: Sequence[Point],
    facts: Mapping[str, Any],
    space: Mapping[str, str] | None,
    sweep_dir: Path,
    extend: bool,
) -> Record:
    """The record of a sweep that goes on: its jobs as they are called now, and behind them those that are added.

    Args:
        record: as it was.
        points: masked, none twice, of this invocation; of a search one that stands for all.
        facts: how this invocation was started.
        space: of a search.
        sweep_dir: for messages.
        extend: whether points may be added.

    Raises:
        ConfigError: it is another sweep.
    """
    _require_same_space(record.space, space)
    if space is not None:
        require_same_base(record, points)
        return record
    match = match_points(record.entries, points)
    require_same(record, match, sweep_dir, extend)
    now = {entry.number: dataclasses.replace(entry, overrides=point.overrides) for entry, point in match.jobs}
    record = dataclasses.replace(record, entries=tuple(now.get(entry.number, entry) for entry in record.entries))
    return _add_points(record, match.added, facts) if match.added else record


def _add_points(record: Record, points: Sequence[Point], facts: Mapping[str, Any]) -> Record:
    first = max((entry.number for entry in record.entries), default=-1) + 1
    before = [join_common(record.common, entry.differs) for entry in record.entries]
    common, differs = split_common([*before, *(point.config for point in points)])
    added = [_entry(first + index, point, {}) for index, point in enumerate(points)]
    entries = [
        dataclasses.replace(entry, differs=own) for entry, own in zip([*record.entries, *added], differs, strict=True)
    ]
    _require_own_folders(entries)
    log.info("%d points are added to the %d of the sweep", len(points), len(before))
    identity = identify(None, [entry.identity for entry in entries])
    # Whoever goes on with all of it needs the command that says all of it.
    return dataclasses.replace(record, facts=dict(facts), common=common, entries=tuple(entries), identity=identity)


def added_entries(events: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """The jobs that a search added, from its journal."""
    found = []
    for event in events:
        if event["event"] == "add":
            try:
                found.append(entry_from({**event, "number": event["job"]}))
            except (KeyError, TypeError, ValueError):
                log.warning("a line of the journal adds job %s, but does not say which", event["job"])
    return found


def tell_other_code(before: Mapping[str, Any], now: Mapping[str, Any], sweep_dir: Path) -> None:
    """Warns where the source is another than when jobs of the sweep were last started; facts as `Manifest.open` has."""
    old, new = before.get("git") or {}, now.get("git") or {}
    if old.get("commit") not in (None, new.get("commit")):
        text = "the code is at commit %s, the sweep %s was last started with %s: its jobs are not surely comparable"
        log.warning(text, new.get("commit"), sweep_dir, old["commit"])
    elif old and before.get("patch") != now.get("patch"):
        text = "the code has other uncommitted changes than at the last start of the sweep %s: not surely comparable"
        log.warning(text, sweep_dir)


def _entry(number: int, point: Point, differs: Mapping[str, Any]) -> Entry:
    return Entry(number, point.overrides, point.folder_as(number), point.identity, differs)


def _require_own_folders(entries: Sequence[Entry]) -> None:
    owners: dict[str, Entry] = {}
    for entry in entries:
        other = owners.setdefault(entry.folder, entry)
        if other is not entry:
            found = f"{entry.folder}, of job {other.number} and of job {entry.number}"
            action = "leave the number in it: hydra.sweep.subdir='${hydra.job.num}'"
            raise ConfigError(Problem("jobs of a sweep cannot share a folder", "hydra.sweep.subdir", found, action))


def _require_same_space(before: Mapping[str, str] | None, now: Mapping[str, str] | None) -> None:
    if (before is None) != (now is None):
        kinds = ["a grid" if space is None else "a search" for space in (before, now)]
        found = f"{kinds[1]}; the folder holds {kinds[0]}"
        raise ConfigError(Problem("the sweep in this folder is of another kind", "hydra.sweep.dir", found, UNDO))
    old, new = before or {}, now or {}
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if changed:
        what = "the search in this folder was begun with another space"
        raise ConfigError(
            *(
                Problem(what, key, f"{new.get(key, 'nothing')}, before {old.get(key, 'nothing')}", UNDO)
                for key in changed
            )
        )
