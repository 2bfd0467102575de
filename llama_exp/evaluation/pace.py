"""How far a long evaluation is, for a person: rate and time left, on the live line or now and then as a line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from llama_exp.console.live import format_seconds
from llama_exp.evaluation.outcome import Stopped

LINE_SECONDS = 30  # between two lines of the log
_log = logging.getLogger(__name__)


class Pace:
    """Called with the number of items that came to be done.

    Args:
        name: of the evaluation.
        total: items in all; what comes beyond, of a task that asks for more than one text of each, is not shown.
        stop: whether to stop; asked at each call.
        tell_phase: is told how far it is.

    Raises:
        Stopped: `stop()` turned true.
    """

    def __init__(self, name: str, total: int, stop: Callable[[], bool], tell_phase: Callable[[str], None]):
        self._name, self._total, self._stop, self._tell = name, total, stop, tell_phase
        self._done = 0.0
        self._start = self._told = time.monotonic()
        tell_phase(f"evaluating {name}")

    def __call__(self, count: float) -> None:
        """`count` more items are done, or parts of some."""
        if self._stop():
            raise Stopped
        self._done = min(self._done + count, self._total)
        now = time.monotonic()
        text = self.text(now - self._start)
        self._tell(f"evaluating {text}")
        if now - self._told >= LINE_SECONDS:
            self._told = now
            _log.info("evaluating %s", text)

    def text(self, seconds: float) -> str:
        """`docs 120/400, 35.1 items/s, ETA 0:08` after a number of seconds."""
        rate = self._done / max(seconds, 1e-9)
        left = max(0, self._total - self._done) / max(rate, 1e-9)
        shown = f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"
        return f"{self._name} {self._done:.0f}/{self._total}, {shown} items/s, ETA {format_seconds(left)}"
