"""Processes that fork: a root, which is a copy of the launcher, and under it one server for each environment.

    launcher (root's parent)
      root            knows what the launcher knew before it started a thread; forks a server when one is asked for
        server        has set its variables and imported what jobs need; forks one process for each job
          job         see `child`

A server ignores the signals that a terminal sends to all processes of a command. Its socket's end says that the
launcher is gone, and then it stops its jobs: in order, or at once those that were asked to stop before.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from llama_exp.sweeps import child
from llama_exp.sweeps.app import App
from llama_exp.sweeps.channel import Channel

LAST_SECONDS = 30.0  # for a checkpoint, after the launcher's death
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def start_root(work: child.Work, app: App) -> tuple[Channel, int]:
    """Forks the root; returns the way to it, and its pid."""
    here, there = Channel.make_pair()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        here.close()
        _live(lambda: _Server(there, work, app).run())
    there.close()
    return here, pid


def _live(work: Callable[[], None]) -> NoReturn:
    """The life of a forked process: it never returns into the launcher's code."""
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


class _Server:
    """The root, or a server.

    What it is told, as tuples:

        ("serve", environment), a socket      be a root: fork a server that answers there
        ("run", seat), a pipe                 fork a job; its result goes into the pipe
        ("signal", number, signal)            to a job, if it still runs

    What it says: ("ready", None or why not), ("started", number, pid), ("ended", number, wait status).
    """

    def __init__(self, channel: Channel, work: child.Work, app: App):
        self._channel, self._work, self._app = channel, work, app
        self._numbers: dict[int, int] = {}  # pid -> number of the job
        self._signalled: set[int] = set()  # pids
        self._servers: set[int] = set()  # pids

    def run(self) -> None:
        """Serves until the launcher closes its end."""
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        self._woken, waker = os.pipe()
        for end in (self._woken, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            try:
                while True:
                    ready = {key.fileobj for key, _ in selector.select()}
                    self._reap()
                    if self._channel in ready:
                        self._obey()
            except EOFError:
                self._stop_all(selector)

    def _obey(self) -> None:
        message, files = self._channel.receive()
        if message[0] == "serve":
            self._serve(message[1], files[0])
        elif message[0] == "run":
            self._run(message[1], files[0])
        else:
            _, number, signum = message
            for pid in [pid for pid, name in self._numbers.items() if name == number]:
                self._signalled.add(pid)
                os.kill(pid, signum)  # not reaped yet, so it is still the job's own

    def _serve(self, environment: Mapping[str, str], descriptor: int) -> None:
        pid = os.fork()
        if pid:
            os.close(descriptor)
            self._servers.add(pid)
            return
        signal.set_wakeup_fd(-1)
        self._channel.close()
        server = _Server(Channel.adopt(descriptor), self._work, self._app)
        _live(lambda: server.prepare_and_run(environment))

    def prepare_and_run(self, environment: Mapping[str, str]) -> None:
        """A server's life: variables, imports, jobs."""
        os.environ.update(environment)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        try:
            self._app.prepare()
        except Exception as error:
            sys.excepthook(type(error), error, error.__traceback__)
            self._channel.send("ready", f"{type(error).__name__}: {error}")
            return
        gc.collect()
        gc.freeze()  # a collection in a job would copy the pages of all that it shares with the others
        self._channel.send("ready", None)
        self.run()

    def _run(self, seat: child.Seat, descriptor: int) -> None:
        parent = os.getpid()
        signal.pthread_sigmask(
            signal.SIG_BLOCK, IGNORED
        )  # until the job has handlers: one that comes now would be lost
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            self._channel.close()
            _live(lambda: child.run(self._work, seat, descriptor, parent))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
        os.close(descriptor)
        self._numbers[pid] = seat.job.number
        self._channel.send("started", seat.job.number, pid)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)
        while ended := self._find_ended():
            pid = ended.si_pid
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what it started; its number is taken until it is reaped
            _, status = os.waitpid(pid, 0)
            self._servers.discard(pid)
            self._signalled.discard(pid)
            number = self._numbers.pop(pid, None)
            if number is not None:
                self._channel.send("ended", number, status)

    def _find_ended(self) -> Any:
        try:
            return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return None

    def _stop_all(self, selector: selectors.BaseSelector) -> None:
        """The launcher is gone: in order, and then at once."""
        selector.unregister(self._channel)
        for pid in self._numbers:
            os.kill(pid, signal.SIGKILL if pid in self._signalled else signal.SIGTERM)
        deadline = time.monotonic() + LAST_SECONDS
        while self._numbers or self._servers:
            if time.monotonic() > deadline:
                for pid in self._numbers:
                    os.kill(pid, signal.SIGKILL)
            selector.select(1.0)
            self._reap()
