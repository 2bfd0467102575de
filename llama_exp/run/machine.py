"""What this machine is: processor, its instructions, cores, memory. Imports no framework."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
# What oneDNN, Eigen and XLA choose their kernels by; others of a processor's hundred flags decide no sum.
_DECIDING = re.compile(r"avx\w*|fma|f16c|amx_\w+|asimd\w*|sve\w*|bf16|i8mm|sme2?")


def describe() -> dict[str, Any]:
    """JSON-ready facts of `run.json`: platform, processor, instructions, cores of this process, memory in bytes."""
    return {
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "instructions": instructions(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": memory_bytes(),
    }


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instructions() -> list[str]:
    """The vector instructions of the processor that kernels are chosen by, sorted; [] where the system tells none."""
    flags = _cpuinfo("flags") or _cpuinfo("Features") or ""
    return sorted(flag for flag in flags.split() if _DECIDING.fullmatch(flag))


def memory_bytes() -> int | None:
    """Main memory of the machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _cpuinfo(name: str) -> str | None:
    """The first entry of this name, of the first processor."""
    try:
        match = re.search(rf"^{name}\s*:\s*(.+)$", _CPUINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return match.group(1).strip() if match else None
