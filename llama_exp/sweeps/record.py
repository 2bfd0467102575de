"""`sweep.json`: what a sweep was asked for. Written whole when it begins, and again only when it gets more jobs.

schema, identity, started       of the sweep; the same points in any order have the same identity
command, arguments, working_folder, git, ...   how it was started and with which code; secrets masked
space                           of a search: key -> what it may be; null for a grid
common                          dotted key -> value that all jobs have
jobs                            number, overrides, folder, identity, and under `differs` the keys that differ
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.json_file import MAX_RECORD_BYTES, read_json
from llama_exp.files.json_text import plain
from llama_exp.files.writing import write_json

RECORD_FILE = "sweep.json"
SCHEMA = 1
ABSENT = "(no such key)"
_ACTION = "put back a whole copy of the file, or begin a new sweep in another folder with hydra.sweep.dir=<folder>"


@dataclass(frozen=True)
class Entry:
    """A job of a sweep.

    overrides: those that differ between the jobs, secrets masked. folder: relative to the sweep's. identity: hash of
    what decides the job. differs: dotted key -> value, where the jobs differ.
    """

    number: int
    overrides: tuple[str, ...]
    folder: str
    identity: str
    differs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """All of `sweep.json`.

    facts: how the sweep was started. space: of a search, key -> what it may be; its jobs are in the journal. common: of
    a search, the config of the point that stands for all. identity: of the whole, whatever the order of its points.
    """

    started: str
    facts: Mapping[str, Any]
    space: Mapping[str, str] | None
    common: Mapping[str, Any]
    entries: tuple[Entry, ...]
    identity: str

    def write(self, sweep_dir: Path) -> None:
        """Replaces the file; raises `StorageError`."""
        jobs = [
            {
                "number": entry.number,
                "overrides": list(entry.overrides),
                "folder": entry.folder,
                "identity": entry.identity,
                "differs": entry.differs,
            }
            for entry in self.entries
        ]
        head = {"schema": SCHEMA, "identity": self.identity, "started": self.started, **self.facts}
        write_json(sweep_dir / RECORD_FILE, {**head, "space": self.space, "common": self.common, "jobs": jobs})


def holds_sweep(sweep_dir: Path) -> bool:
    """Whether a sweep was begun in the folder; its record may be damaged."""
    return (sweep_dir / RECORD_FILE).exists()


def read_record(sweep_dir: Path) -> Record:
    """The record of the sweep in a folder.

    Raises:
        InputError: there is none, or it is damaged, or of a later version.
    """
    path = sweep_dir / RECORD_FILE
    content = read_json(path, MAX_RECORD_BYTES)
    if content.get("schema") != SCHEMA:
        raise InputError.about(path, "is of another version", f"schema {content.get('schema')}, not {SCHEMA}", _ACTION)
    try:
        entries = tuple(entry_from(job) for job in content["jobs"])
        known = ("schema", "identity", "started", "space", "common", "jobs")
        facts = {key: value for key, value in content.items() if key not in known}
        record = Record(
            content["started"], facts, content["space"], dict(content["common"]), entries, str(content["identity"])
        )
    except (KeyError, TypeError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
        raise InputError.about(path, "the record of the sweep is damaged", found, _ACTION) from error
    return record


def entry_from(job: Mapping[str, Any]) -> Entry:
    """An entry as it is written; raises KeyError, TypeError, ValueError for anything else."""
    number, folder = job["number"], str(job["folder"])
    if not isinstance(number, int) or Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise ValueError(f"job {number} in {folder!r}")
    return Entry(number, tuple(map(str, job["overrides"])), folder, str(job["identity"]), dict(job["differs"]))


def find_entry(entries: Sequence[Entry], overrides: Sequence[str]) -> Entry | None:
    """The job that Hydra's overrides, without secrets, mean: by those of them whose keys differ between the jobs."""
    keys = {key_of(line) for entry in entries for line in entry.overrides}
    own = own_lines(overrides, keys)
    return next((entry for entry in entries if own_lines(entry.overrides, keys) == own), None)


def own_lines(overrides: Iterable[str], keys: Collection[str]) -> frozenset[str]:
    """Those of some overrides that are about some keys; what they do to a config (`+`, `++`) does not count."""
    return frozenset(line.lstrip("+") for line in overrides if key_of(line) in keys)


def key_of(line: str) -> str:
    """The key of an override."""
    return line.lstrip("+").partition("=")[0]


def identify(space: Mapping[str, str] | None, identities: Iterable[str]) -> str:
    """The hash of a sweep: of its points, whatever their order; of a search, of its space and one point."""
    parts = [*sorted(identities), *(f"{key}={text}" for key, text in sorted((space or {}).items()))]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest()


def split_common(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What all configs have, and for each what it has besides, as strict JSON; `ABSENT`: it lacks the key."""
    if not configs:
        return {}, []
    first = configs[0]
    keys = dict.fromkeys(key for config in configs for key in config)
    varying = {key for key in keys if any(_differ(key, first, config) for config in configs[1:])}
    common = plain({key: first[key] for key in keys if key not in varying})
    return common, [plain({key: config.get(key, ABSENT) for key in keys if key in varying}) for config in configs]


def join_common(common: Mapping[str, Any], differs: Mapping[str, Any]) -> dict[str, Any]:
    """A config from its two parts."""
    return {key: value for key, value in {**common, **differs}.items() if value != ABSENT}


def _differ(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one.get(key, ABSENT) != other.get(key, ABSENT))
