"""All runs that some folders mean: runs, sweeps, and folders above them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from llama_exp.config.run_home import REPEATED
from llama_exp.errors import InputError
from llama_exp.files.latest import is_latest, without_latest
from llama_exp.results.run import RunResult, holds_run, load_run
from llama_exp.results.sweep import SweepPlace, read_places
from llama_exp.sweeps.record import holds_sweep

_Sweeps = dict[Path, dict[Path, SweepPlace]]


def load_runs(folders: Iterable[str | Path]) -> list[RunResult]:
    """Every run that the folders mean, each once, in the order of the folders; jobs of a sweep by number.

    Args:
        folders: of a run, of a sweep, or one with such folders below it, at any depth.

    Raises:
        InputError: a folder holds neither, or a record is damaged.
    """
    return [load_run(folder, place) for folder, place in find_run_folders(folders)]


def find_run_folders(folders: Iterable[str | Path]) -> list[tuple[Path, SweepPlace | None]]:
    """Folder and place in its sweep of each of these runs; jobs that have not begun are left out."""
    found: dict[Path, SweepPlace | None] = {}
    sweeps: _Sweeps = {}  # each is read once, though every job is named
    for given in folders:
        folder = Path(without_latest(str(given))).expanduser().absolute()
        places = dict(_find_in(folder, sweeps))
        if not places:
            raise _no_runs(given, folder)
        for path, place in places.items():
            found[path] = place if found.get(path) is None else found[path]
    return list(found.items())


def _no_runs(given: str | Path, folder: Path) -> InputError:
    if holds_sweep(folder):
        what, action = "no job has left a run.json", "wait until one has begun, or give another folder"
        return InputError.about(given, "no job of this sweep has begun", what, action)
    found = "neither run.json nor sweep.json in it or below it" if folder.is_dir() else "no such folder"
    action = "give the folder of a run or of a sweep, or one that holds such folders: outputs/<name>"
    return InputError.about(given, "holds no run and no sweep", found, action)


def _find_in(folder: Path, sweeps: _Sweeps) -> Iterator[tuple[Path, SweepPlace | None]]:
    if holds_run(folder):
        yield folder, _read_sweep_once(folder.parent, sweeps).get(folder)
    elif holds_sweep(folder):
        yield from ((path, place) for path, place in _read_sweep_once(folder, sweeps).items() if holds_run(path))
    elif folder.is_dir():
        for below in sorted(path for path in folder.iterdir() if path.is_dir() and not is_latest(path)):
            if below.name != REPEATED:  # one run twice is no second run
                yield from _find_in(below, sweeps)


def _read_sweep_once(folder: Path, sweeps: _Sweeps) -> dict[Path, SweepPlace]:
    """Folder and place of its jobs; {}: it holds no sweep."""
    if folder not in sweeps:
        sweeps[folder] = dict(read_places(folder)) if holds_sweep(folder) else {}
    return sweeps[folder]
