"""What is there of a stage: how many of its runs have finished, and how many failed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from llama_exp.errors import ExitCode, InputError
from llama_exp.files.json_file import read_record
from llama_exp.results.sweep import read_places
from llama_exp.sweeps.record import holds_sweep

_DONE = ("finished", "pruned")


@dataclass(frozen=True)
class Standing:
    """Of a stage, numbers of runs.

    finished: to their end. diverged: ended by a loss that is not finite, which is a result too. failed: in other ways.
    total: that the stage has.
    """

    finished: int
    diverged: int
    failed: int
    total: int

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to run."""
        return self.finished + self.diverged >= self.total

    def __add__(self, other: Standing) -> Standing:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Standing(*(one + another for one, another in pairs))

    def __str__(self) -> str:
        runs = "1 run" if self.total == 1 else f"{self.total} runs"
        numbers = {"finished": self.finished, "diverged": self.diverged, "failed": self.failed}
        parts = [f"{number} {word}" for word, number in numbers.items() if number]
        return f"{runs} ({', '.join(parts)})" if parts else runs


def find_standing(folder: Path, total: int) -> Standing:
    """From the folder of a sweep, or of a single run; a damaged record counts as nothing: who runs the stage tells it.

    Args:
        folder: may not exist.
        total: how many runs the stage has.
    """
    folders = _list_jobs(folder) if holds_sweep(folder) else [folder]
    summaries = [read_record(folder / "summary.json") or {} for folder in folders]
    states = [str(summary.get("status")) for summary in summaries]
    diverged = sum(summary.get("exit_code") == ExitCode.NUMERICAL for summary in summaries)
    return Standing(sum(state in _DONE for state in states), diverged, states.count("failed") - diverged, total)


def _list_jobs(folder: Path) -> list[Path]:
    try:
        return [path for path, _ in read_places(folder)]
    except InputError:
        return []
