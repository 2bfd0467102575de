"""Which of the processes of one run this is: all compute the same, one of them writes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Process:
    """One of the processes that compute a run together.

    The writer makes the run folder, holds its lock, writes metrics, checkpoints and summary, and talks to the
    terminal. The others read what they need to go on from, and leave nothing.

    Attributes:
        rank: its number, from 0 on.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank={self.rank} must be at least 0 and below size={self.size}")

    @property
    def is_writer(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0


ALONE = Process()
