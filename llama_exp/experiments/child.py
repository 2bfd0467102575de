"""A stage's command in a process of its own, which ends in order whenever this one does.

The stage has a session of its own, so that Ctrl-C reaches the conductor alone, which passes it on once. Killed without
warning, the conductor takes the stage with it: Linux sends the stage SIGTERM, and it leaves a checkpoint.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from llama_exp import signals
from llama_exp.sweeps.child import PR_SET_PDEATHSIG

_LOOK_SECONDS = 0.2
_BEAT_SECONDS = 10.0


def run_child(arguments: Sequence[str], beat: Callable[[], None]) -> int:
    """The exit code of `llama-exp train`; of a process that a signal killed, minus the signal's number.

    Args:
        arguments: behind `train`.
        beat: is called every ten seconds.
    """
    with signals.noted(None):
        command = [sys.executable, "-m", "llama_exp", "train", *arguments]
        parent = os.getpid()
        child = subprocess.Popen(command, start_new_session=True, preexec_fn=lambda: _end_with(parent))
        try:
            return _wait(child, beat)
        except BaseException:
            child.send_signal(signal.SIGTERM)
            child.wait()
            raise


def _wait(child: subprocess.Popen[bytes], beat: Callable[[], None]) -> int:
    is_told, last = False, time.monotonic()
    while True:
        try:
            return child.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        number = signals.received()
        if number is not None and not is_told:
            child.send_signal(number)
            is_told = True
        if time.monotonic() - last >= _BEAT_SECONDS:
            beat()
            last = time.monotonic()


def _end_with(parent: int) -> None:
    """Linux asks this process to stop when its parent dies; elsewhere it goes on, and the next start waits for it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise ProcessLookupError("its parent is gone")  # ends it before it becomes the stage
