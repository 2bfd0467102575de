"""Signals end a run in order, from the first line of its process to the last.

SIGINT                       Interrupted (exit code 130)
SIGTERM, SIGUSR1, SIGHUP     Preempted (exit code 75: requeue me); SIGHUP only if nohup did not switch it off
SIGUSR2                      Pruned (exit code 75): a search that this run is a job of expects nothing of it
                             Preempted where the process has a handler for it: submitit's, which requeues the job

The first signal is taken in one of two ways, the second has its usual effect at once.

    raised    `Stopped` arises wherever the process is: while modules load, data is prepared, a model built, exported
    noted     the training loop asks `received()` after each step; and once a run's outcome is decided, nobody asks

Before the first line of `orderly` the operating system's rule holds: the signal kills, and there is no run yet.
Imports what starts a process in milliseconds only, because everything before `orderly` is unprotected.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from llama_exp.errors import Interrupted, LlamaExpError, Preempted, Problem, Pruned

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2)
_KINDS = {signal.SIGINT: Interrupted, signal.SIGUSR2: Pruned}  # of the others: Preempted
_log = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
    """A signal asked the process to stop; of the kind that libraries clean up after, and do not swallow."""

    def __init__(self, number: signal.Signals):
        super().__init__(number.name)
        self.number = number

    def told(self, where: str) -> LlamaExpError:
        """What ends the run, for a person; `where` is the run folder or the step it had reached."""
        action = "run the same command with resume=auto to go on"
        is_asked_to_requeue = self.number == signal.SIGUSR2 and _catcher.is_of_launcher
        kind = Preempted if is_asked_to_requeue else _KINDS.get(self.number, Preempted)
        return kind(Problem("the run was stopped", where, self.number.name, action))


class _Catcher:
    """The handlers of this process, of which there is one set.

    Attributes:
        received: the first signal since the handlers are there, or None.
        raises: whether the first signal raises `Stopped`, or is only noted.
        raised: whether it did.
        is_of_launcher: whether the process had a handler of its own for that signal.
        notice: is logged when a signal is noted; None: nothing is.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.raises = self.raised = self.is_of_launcher = False
        self.notice: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def install(self) -> bool:
        """Whether the handlers are new; Python allows them in the main thread only."""
        if self._previous or threading.current_thread() is not threading.main_thread():
            return False
        self.received, self.raises, self.raised, self.notice = None, False, False, None
        self.is_of_launcher = False
        for number in STOPPING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        return True

    def remove(self) -> None:
        """Gives the handlers of before back."""
        previous, self._previous = self._previous, {}
        for number, handler in previous.items():
            signal.signal(number, handler)

    def give_default(self, handler: signal.Handlers) -> None:
        """The same handler of the operating system's for every signal that was caught."""
        previous, self._previous = self._previous, {}
        for number in previous:
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises `Stopped` if a signal was noted, or a library swallowed the first one."""
        if self.received is not None:
            self.raised = True
            raise Stopped(self.received)

    def _handle(self, number: int, _frame: object) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = signal.Signals(number)
        self.is_of_launcher = callable(self._previous.get(self.received))
        if self.raises:
            self.check()
        if self.notice is not None:
            _log.warning(self.notice, self.received.name)


_catcher = _Catcher()


def received() -> signal.Signals | None:
    """The signal that asks to stop, or None."""
    return _catcher.received


def check() -> None:
    """Raises `Stopped` if a signal has asked to stop."""
    _catcher.check()


def only_note() -> None:
    """From here on the outcome stands, and a signal is noted without effect; until the next `raised_at_once`."""
    _catcher.raises, _catcher.notice = False, None


def decide() -> None:
    """The last moment at which a signal counts: raises `Stopped` if one came; from here on as `only_note`."""
    only_note()
    check()


def hand_on() -> None:
    """Gives the signal that stopped a run to the handler that the process had for it before the run.

    A launcher that started the process (submitit) has one, which queues the job again. Called by the run, it does so
    with the checkpoint written; called in its place, it would end the process in the middle of a step.
    """
    number = _catcher.received
    if number is None or number == signal.SIGINT or _catcher._previous:
        return
    if callable(signal.getsignal(number)):
        signal.raise_signal(number)


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """The whole process, from its first line on: a signal ends it with a message and its exit code.

    Also while Python winds up, where a signal would kill a process whose run has finished, it changes nothing.
    """
    _catcher.install()
    atexit.register(_catcher.give_default, signal.SIG_IGN)  # the first to register is the last to be called
    _catcher.raises = True
    try:
        yield
    except Stopped as stop:
        error = stop.told("before the run began")
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    finally:
        only_note()


@contextlib.contextmanager
def raised_at_once() -> Iterator[None]:
    """A run: the first signal raises `Stopped`, also one that came before; after the block signals are noted only."""
    is_new = _catcher.install()
    _catcher.raises = bool(_catcher._previous)
    try:
        check()
        yield
    finally:
        only_note()
        if is_new:
            _catcher.remove()


@contextlib.contextmanager
def noted(notice: str | None) -> Iterator[None]:
    """A block that is not interrupted: it asks `received()` whether to stop.

    Args:
        notice: is logged when the signal comes, its name for `%s`; None: nothing is.
    """
    is_new = _catcher.install()
    before, _catcher.raises, _catcher.notice = _catcher.raises, False, notice
    try:
        yield
    finally:
        _catcher.raises, _catcher.notice = before, None
        if is_new:
            _catcher.remove()


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """Turns `Stopped`, and what a library made of it, into the error that ends the run; see `Stopped.told`."""
    try:
        yield
    except BaseException as error:
        if not _catcher.raised or isinstance(error, LlamaExpError):
            raise
        raise Stopped(received() or signal.SIGTERM).told(where) from error


def _in_a_forked_child() -> None:
    """A worker is its parent's to stop, and has no run of its own."""
    _catcher.give_default(signal.SIG_DFL)


os.register_at_fork(after_in_child=_in_a_forked_child)
