"""All that decides the result of a run, as its folder has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.digest import digest_of
from llama_exp.files.json_file import open_regular, read_record
from llama_exp.results.run import RunResult

PATCH_FILE, SOURCES_FILE = "git.diff", "sources.json"
NO_PATCH = "none"


@dataclass(frozen=True)
class State:
    """What two runs are compared by.

    values: config by dotted key, with `recipe`. record: of run.json. patch: digest of the uncommitted changes, `none`
    without any. sources: file of the package -> beginning of its digest; {}: the run is older than this record.
    """

    values: Mapping[str, Any]
    record: Mapping[str, Any]
    patch: str
    sources: Mapping[str, Any]


def read_state(run: RunResult) -> State:
    """What a run has recorded."""
    sources = read_record(run.folder / SOURCES_FILE) or {}
    return State(run.values, run.record, digest_patch(run.folder / PATCH_FILE), sources)


def digest_patch(path: Path) -> str:
    """Digest of a patch file; `none` where there is no such file."""
    if not path.exists():
        return NO_PATCH
    try:
        with open_regular(path) as file:
            return digest_of(file)
    except (InputError, OSError):
        return "unreadable"
