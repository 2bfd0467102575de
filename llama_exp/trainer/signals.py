"""Signals ask the loop to stop at the end of a step; a second one ends the process at once.

SIGINT                       Interrupted (exit code 130)
SIGTERM, SIGUSR1, SIGHUP     Preempted (exit code 75: requeue me); SIGHUP only if nohup did not switch it off
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

from llama_exp.errors import Interrupted, LlamaExpError, Preempted, Problem
from llama_exp.files.process import ALONE, Process

_log = logging.getLogger(__name__)


class StopSignals:
    """A context in which the first signal is noted in `received` and the second takes its usual effect.

    Outside of the main thread, where Python allows no handlers, it notes nothing.

    Args:
        process: which of the run's processes this is; the writer says that it stops.
    """

    def __init__(self, process: Process = ALONE):
        self._process = process
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *details):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def error(self, step: int, checkpoint: str) -> LlamaExpError:
        """The exception that ends a run stopped after `step`, its state being in `checkpoint`."""
        assert self.received is not None, "nothing stopped it"
        kind = Interrupted if self.received == signal.SIGINT else Preempted
        action = "run the same command with resume=auto to go on"
        return kind(Problem("the run was stopped", f"step {step}, {checkpoint}", self.received.name, action))

    def _note(self, number, frame):
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = signal.Signals(number)
        if self._process.is_writer:
            _log.warning("%s: stopping after this step with a checkpoint; again: at once", self.received.name)
