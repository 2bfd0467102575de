"""Memory of jobs: whether another one fits, which one takes too much, and whether the kernel had to kill."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
RESERVE = 0.05  # of what is free when a sweep begins: for the launcher, its servers and everybody else
_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
# Limit, use, and what of it are files that can be dropped: control groups of version 2, and of version 1.
_NAMES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
_NO_LIMIT = 2**60  # version 1 writes a number of this size for none


def show_gib(size: float) -> str:
    """A size for a person."""
    return f"{size / GIB:.1f} GiB"


def free_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """What programs may still take, by the machine and by the container; None: nobody says."""
    found = [_available(proc), _left_in_container(proc, cgroup)]
    return min((size for size in found if size is not None), default=None)


def _available(proc: Path) -> int | None:
    for line in _lines(proc / "meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_container(proc: Path, cgroup: Path) -> int | None:
    """What the narrowest limit leaves; files that the kernel can drop count as free."""
    left = []
    for folder in _groups(proc, cgroup):
        for limit, used, inactive in _NAMES:
            most, now = _number(folder / limit), _number(folder / used)
            if most is not None and now is not None and most < _NO_LIMIT:
                droppable = _table(folder / "memory.stat").get(inactive, 0)
                left.append(max(0, most - now + droppable))
    return min(left, default=None)


def _groups(proc: Path, cgroup: Path) -> Iterator[Path]:
    """The control groups that this process is in, from its own to the machine's."""
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            folder = Path(path.lstrip("/"))
            yield from (cgroup / controllers / part for part in (folder, *folder.parents))


def count_kernel_kills(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int:
    """How often the kernel has killed a process for want of memory, here or in this container."""
    files = [proc / "vmstat"]
    files += [folder / name for folder in _groups(proc, cgroup) for name in ("memory.events", "memory.oom_control")]
    return max(_table(path).get("oom_kill", 0) for path in files)


def count_resident(pids: Iterable[int], proc: Path = _PROC) -> int:
    """What processes hold, each by itself; pages that several share count for each of them. Quick."""
    pages = [lines[0].split()[1] for pid in pids if (lines := _lines(proc / str(pid) / "statm"))]
    return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pids: Iterable[int], proc: Path = _PROC) -> dict[int, int]:
    """What each job holds, with the processes of its session; pages shared with its server count in part only.

    Args:
        pids: of the jobs, each the leader of its session.
        proc: where the kernel tells.
    """
    held = dict.fromkeys(pids, 0)
    for folder in proc.glob("[0-9]*") if held else ():
        session = _session(folder)
        if session in held:
            held[session] += _proportional(folder)
    return held


def _session(folder: Path) -> int | None:
    for line in _lines(folder / "stat"):
        return int(line.rpartition(")")[2].split()[3])
    return None


def _proportional(folder: Path) -> int:
    for line in _lines(folder / "smaps_rollup"):
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass
class Guard:
    """The memory of one sweep.

    limit: bytes that its jobs may hold together; None: nobody knows how much there is.
    """

    limit: int | None

    @classmethod
    def make(cls, limit_gb: float | None) -> Guard:
        """The limit that somebody stated, else what is free now, less a reserve."""
        if limit_gb is not None:
            return cls(int(limit_gb * GIB))
        free = free_bytes()
        return cls(None if free is None else int(free * (1 - RESERVE)))

    def fits(self, needed: int | None, running: Iterable[tuple[int | None, int]]) -> bool:
        """Whether a job may start beside those that run.

        Args:
            needed: bytes at its peak; None: nobody knows, and it may.
            running: what each of the others needs, and what it holds.
        """
        if needed is None or self.limit is None:
            return True
        others = [(need or 0, held) for need, held in running]
        planned = sum(max(need, held) for need, held in others)
        still_to_come = sum(max(0, need - held) for need, held in others)
        free = free_bytes()
        return planned + needed <= self.limit and (free is None or still_to_come + needed <= free)

    def may_be_short(self, resident: int) -> bool:
        """Whether a quick count of what the jobs hold is above the limit; see `count_resident`."""
        return self.limit is not None and resident > self.limit

    def find_culprit(self, held: Mapping[int, int]) -> int | None:
        """The job that holds most, if all together hold more than the limit; None: they do not."""
        if self.limit is None or sum(held.values()) <= self.limit:
            return None
        return max(held, key=lambda number: held[number])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    pairs = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _number(path: Path) -> int | None:
    """None: there is no such file, or no limit."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdecimal() else None
