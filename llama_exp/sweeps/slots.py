"""Places for jobs that run at the same time: shares of the cores, and devices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """A place for one job.

    number: from 0 on. cores: numbers of those that it may use; empty where they cannot be chosen, or are all.
    device: what CUDA_VISIBLE_DEVICES names; None: it stays as it is.
    """

    number: int
    cores: frozenset[int]
    device: str | None

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead to its device."""
        return {} if self.device is None else {"CUDA_VISIBLE_DEVICES": self.device}


def make_slots(n_jobs: int | None, devices: Sequence[int | str] | None) -> list[Slot]:
    """The places of a sweep.

    Args:
        n_jobs: how many; None: one for each device, else one.
        devices: numbers or names of those to share out, in turn where there are more jobs.
    """
    count = n_jobs or len(devices or ()) or 1
    cores, size = usable_cores(), cores_each(count)
    slots = []
    for number in range(count):
        share = frozenset(cores[(number * size + step) % len(cores)] for step in range(size)) if cores else frozenset()
        device = str(devices[number % len(devices)]) if devices else None
        slots.append(Slot(number, frozenset() if count == 1 else share, device))
    return slots


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may use; empty where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def cores_each(count: int) -> int:
    """The cores of each of `count` jobs: the same for all, since a job's bits depend on its number of threads."""
    return max(1, (len(usable_cores()) or os.cpu_count() or 1) // count)
