"""How much memory this machine has for a run. Imports no framework, initialises no device."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_MEMINFO = "/proc/meminfo"
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_USED = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")
_MOST_BYTES = 2**60  # what a container without a limit says
_SECONDS = 0.7  # a driver that does not answer at once is left alone
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclass(frozen=True)
class Room:
    """Memory for a run.

    name: of whose memory it is. num_bytes: what a run may take now. total_bytes: what there is in all.
    is_accelerator: whether it is a GPU's, where the frameworks' own share of main memory does not count.
    """

    name: str
    num_bytes: int
    total_bytes: int
    is_accelerator: bool = False


def find_rooms() -> list[Room]:
    """Main memory, less what others use; and that of the GPU that most is free of, where `nvidia-smi` tells of one."""
    return [*_main_memory(), *_gpu_memory()]


def read_size(text: str) -> int:
    """Bytes of a size as people write it: 24GB, 16GiB, 512M; raises ValueError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text, re.IGNORECASE)
    unit = None if match is None else _UNITS.get(match[2].upper())
    if match is None or unit is None or float(match[1]) * unit < 1:
        raise ValueError(f"{text} is no size")
    return int(float(match[1]) * unit)


def _main_memory() -> list[Room]:
    try:
        lines = dict(line.split(":") for line in Path(_MEMINFO).read_text().splitlines())
        total, available = (int(lines[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return []
    limit, used = _first_number(_LIMITS), _first_number(_USED)
    if limit is not None and limit < min(total, _MOST_BYTES):
        total, available = limit, min(available, max(0, limit - (used or 0)))
    return [Room("this machine", available, total)]


def _first_number(names: tuple[str, ...]) -> int | None:
    for name in names:
        try:
            return int(Path(name).read_text())
        except (OSError, ValueError):  # `max`: no limit
            continue
    return None


def _gpu_memory() -> list[Room]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_SECONDS, check=True)
        rows = [line.rsplit(",", 2) for line in done.stdout.splitlines()]
        rooms = [Room(name.strip(), int(free) * 2**20, int(total) * 2**20, True) for name, free, total in rows]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    return sorted(rooms, key=lambda room: room.num_bytes)[-1:]
