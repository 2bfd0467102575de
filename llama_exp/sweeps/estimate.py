"""How long a sweep still takes, from what its jobs have taken so far."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def estimate_left(running: Sequence[float | None], waiting: int, slots: int, job_seconds: float | None) -> float | None:
    """Seconds until the last job ends, if each waiting one takes the first slot that becomes free.

    Args:
        running: seconds left of each running job, None where it is not known.
        waiting: how many have not begun.
        slots: how many run at the same time.
        job_seconds: what one job takes in the mean; None: not known yet.

    Returns:
        None where nothing tells: a running job whose end is not known, or waiting ones of unknown length.
    """
    if any(left is None for left in running) or (waiting and job_seconds is None):
        return None
    ends = [left for left in running if left is not None]
    ends += [0.0] * max(0, slots - len(ends))
    heapq.heapify(ends)
    if not ends:
        return None if waiting else 0.0
    for _ in range(waiting):
        heapq.heapreplace(ends, ends[0] + (job_seconds or 0.0))
    return max(ends)
