"""The run that is to be repeated, from its folder or from an archive of `llama-exp pack`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.config.run_home import home_of
from llama_exp.errors import InputError
from llama_exp.files.archive import MANIFEST, unpack_archive
from llama_exp.files.digest import digest_of
from llama_exp.files.json_file import open_regular
from llama_exp.results import RunResult, load_run

UNPACKED = "unpacked"  # below outputs/
_LETTERS = 8


@dataclass(frozen=True)
class Original:
    """A recorded run.

    run: as it was found. source: what the user named. packed: recorded path -> files of it that the archive holds,
    relative to the run's folder.
    """

    run: RunResult
    source: Path
    packed: Mapping[str, Sequence[str]]

    @property
    def name(self) -> str:
        """For the folder of its repetitions."""
        return self.run.folder.name


def open_original(source: Path) -> Original:
    """The run in a folder, or in an archive, which is unpacked to outputs/unpacked/ first.

    Raises:
        InputError: there is no run, or it is damaged.
        StorageError: the archive cannot be unpacked there.
    """
    path = source.expanduser()
    if not path.is_file():
        return Original(load_run(path), source, {})
    with open_regular(path) as file:
        digest = digest_of(file)
    folder = home_of(UNPACKED) / f"{path.name.removesuffix('.gz').removesuffix('.tar')}_{digest[:_LETTERS]}"
    manifest = unpack_archive(path, folder.absolute())
    return Original(load_run(folder), source, _packed(path, manifest))


def _packed(path: Path, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    """`data` of the manifest; every file must be one that was unpacked."""
    stated = manifest.get("data", {})
    sound = isinstance(stated, dict) and all(
        isinstance(files, list) and all(isinstance(file, str) and file in manifest["files"] for file in files)
        for files in stated.values()
    )
    if not sound:
        action = "give an archive as llama-exp pack wrote it, or get it again"
        raise InputError.about(path, f"its {MANIFEST} is damaged", "`data` names files that are not inside", action)
    return stated


def read_starts(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every start of the run, in order; of a damaged record none."""
    starts = record.get("starts")
    return [start for start in starts if isinstance(start, Mapping)] if isinstance(starts, list) else []
