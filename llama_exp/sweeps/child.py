"""A job in its forked process: what is its own before Hydra runs it, and what it leaves when it ends."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext, TaskFunction

from llama_exp.files.redact import printable, redact
from llama_exp.sweeps.channel import post
from llama_exp.sweeps.jobs import Job

PR_SET_PDEATHSIG = 1
KILLED_FIRST = 500  # of 1000: how much sooner than others the kernel takes it when memory runs out
FILE_MODE = 0o666  # less what the umask takes
_here: list[int] = []  # the number of the job that this process is


@dataclass(frozen=True)
class Work:
    """What every job of a launcher calls, Hydra's two, and what holds for all of them.

    known_modules: that the launcher has imported, so that an exception which they define costs it nothing.
    ignores_hangups: whether `nohup` started the command.
    """

    task_function: TaskFunction
    hydra_context: HydraContext
    known_modules: frozenset[str]
    ignores_hangups: bool


@dataclass(frozen=True)
class Seat:
    """A job and what it may use.

    cores: numbers of the processor's cores; empty: all. environment: variables that are read when a device is opened,
    not at an import. output: the file that gets what it prints.
    """

    job: Job
    cores: frozenset[int]
    environment: Mapping[str, str]
    output: Path


@dataclass(frozen=True)
class Result:
    """What a job sends before it ends.

    value: what it returned, pickled. raised: the exception that left it, in one line. error: the same, pickled; None
    where it cannot be sent. exit_code: of its process.
    """

    exit_code: int
    value: bytes | None = None
    raised: str | None = None
    error: bytes | None = None


def is_a_job() -> bool:
    """Whether this process is a job that a launcher's server has forked: the launcher keeps its record."""
    return bool(_here)


def run(work: Work, seat: Seat, descriptor: int, parent: int) -> NoReturn:
    """The job from its fork to its exit.

    Args:
        work: what to call.
        seat: the job.
        descriptor: the pipe that gets its `Result`.
        parent: pid of the server; the job dies with it.
    """
    _here.append(seat.job.number)
    os.setsid()
    _die_with(parent)
    _redirect(seat.output)
    _take_signals(work.ignores_hangups)
    atexit._clear()  # what the launcher's own end would have done
    os.environ.update(seat.environment)
    _take_share(seat.cores)
    result = _call(work, seat.job)
    post(descriptor, result)
    _end(result.exit_code)


def _die_with(parent: int) -> None:
    """Linux kills this process when its parent dies; elsewhere only the parent's orderly end does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _redirect(output: Path) -> None:
    """Standard output and errors into a file, standard input from nowhere; also what libraries in C write."""
    output.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nowhere, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    sys.stdin, sys.stdout, sys.stderr = _open(0, "r"), _open(1, "w"), _open(2, "w")
    faulthandler.enable(sys.stderr)


def _open(descriptor: int, mode: str) -> TextIOWrapper:
    binary = FileIO(descriptor, mode, closefd=False)
    buffered = BufferedReader(binary) if mode == "r" else BufferedWriter(binary)
    return TextIOWrapper(buffered, encoding="utf-8", errors="replace", line_buffering=True)


def _take_signals(ignores_hangups: bool) -> None:
    """As a process of its own has them; the server ignores them."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignores_hangups else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _take_share(cores: frozenset[int]) -> None:
    """Its cores, and its place in the order in which the kernel kills when memory runs out."""
    if cores and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a core was taken away since
            os.sched_setaffinity(0, cores)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(KILLED_FIRST))


def _call(work: Work, job: Job) -> Result:
    """What Hydra does with a job, and what came of it."""
    try:
        returned = run_job(
            hydra_context=work.hydra_context,
            task_function=work.task_function,
            config=job.cfg,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except SystemExit as stop:
        return _of_exit(stop, work.known_modules)
    except BaseException as error:
        return _of_error(error, work.known_modules)
    if returned.status == JobStatus.FAILED:
        return _of_error(returned._return_value, work.known_modules)
    value = returned._return_value
    data = _pickle(value)
    if data is None:
        print(f"what the job returned cannot be sent: {value!r}; its text is sent instead", file=sys.stderr)
    return Result(0, value=data or pickle.dumps(repr(value)))


def _of_exit(stop: SystemExit, known_modules: frozenset[str]) -> Result:
    """A job that leaves by itself; `raise SystemExit(code) from error` says why."""
    if stop.code is None or stop.code == 0:
        return Result(0, value=pickle.dumps(None))
    if not isinstance(stop.code, int):
        print(stop.code, file=sys.stderr)
    code = stop.code if isinstance(stop.code, int) else 1
    cause = stop.__cause__
    if cause is None:
        return Result(code)
    return Result(code, raised=describe(cause), error=_pickle_error(cause, known_modules))


def _of_error(error: BaseException, known_modules: frozenset[str]) -> Result:
    traceback.print_exception(error)
    code = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
    code = int(code) if isinstance(code, int) else 1
    return Result(code, raised=describe(error), error=_pickle_error(error, known_modules))


def describe(error: BaseException) -> str:
    """An exception in one line, without secrets."""
    lines = printable(redact(str(error))).split("\n")
    first = next((line.strip() for line in lines if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _pickle(value: Any) -> bytes | None:
    """None: it cannot be sent."""
    try:
        data = pickle.dumps(value)
        pickle.loads(data)
    except Exception:  # whatever a class of the job's own does when it is copied
        return None
    return data


def _pickle_error(error: BaseException, known_modules: frozenset[str]) -> bytes | None:
    return _pickle(error) if type(error).__module__ in known_modules else None


def _end(exit_code: int) -> NoReturn:
    """What Python does at the end of a process, without returning through the launcher's functions."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # ends pools of threads, then waits for all
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(exit_code)
