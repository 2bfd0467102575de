"""Whether the process that a record names still lives: its number alone may belong to another one by now."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_STATE, _START = 0, 19  # of the fields behind the name in /proc/<pid>/stat


def identify_process(pid: int) -> dict[str, Any]:
    """Number, machine, boot and start (clock ticks since boot) of a process; None for what the system does not tell."""
    fields = _stat(pid)
    start = int(fields[_START]) if fields else None
    return {"pid": pid, "host": socket.gethostname(), "boot": _boot(), "start": start}


def is_here(process: Mapping[str, Any]) -> bool:
    """Whether a recorded process began on this machine, since it was started."""
    return process.get("host") == socket.gethostname() and process.get("boot") == _boot()


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether the process that `identify_process` described lives on this machine, and not only waits to be reaped."""
    pid = process.get("pid")
    if not isinstance(pid, int) or pid <= 0 or not is_here(process):
        return False
    fields = _stat(pid)
    if fields:
        return fields[_STATE] not in ("Z", "X") and int(fields[_START]) == process.get("start")
    if process.get("start") is not None:  # the system tells of its processes, and there is none of this number
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the process' state on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()  # the name, in brackets, may hold anything


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
