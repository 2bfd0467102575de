"""What is there of a stage: how many of its runs have finished, and how many failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llama_exp.errors import InputError
from llama_exp.files.json_file import read_record
from llama_exp.results.sweep import read_places
from llama_exp.sweeps.record import holds_sweep

_DONE = ("finished", "pruned")


@dataclass(frozen=True)
class Standing:
    """Of a stage. finished, failed: numbers of runs. total: that the stage has."""

    finished: int
    failed: int
    total: int

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to run."""
        return self.finished >= self.total

    def __str__(self) -> str:
        runs = "1 run" if self.total == 1 else f"{self.total} runs"
        parts = [f"{self.finished} finished"] if self.finished else []
        parts += [f"{self.failed} failed"] if self.failed else []
        return f"{runs} ({', '.join(parts)})" if parts else runs


def find_standing(folder: Path, total: int) -> Standing:
    """From the folder of a sweep, or of a single run; a damaged record counts as nothing: who runs the stage tells it.

    Args:
        folder: may not exist.
        total: how many runs the stage has.
    """
    folders = _list_jobs(folder) if holds_sweep(folder) else [folder]
    states = [str((read_record(folder / "summary.json") or {}).get("status")) for folder in folders]
    return Standing(sum(state in _DONE for state in states), states.count("failed"), total)


def _list_jobs(folder: Path) -> list[Path]:
    try:
        return [path for path, _ in read_places(folder)]
    except InputError:
        return []
