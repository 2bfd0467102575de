"""What can go wrong, as typed exceptions with an exit code. Imports no framework.

Every message answers four questions: what is wrong, where (config key or file), what value was found, and what to
do next. Jobs raise these; only the outermost entry point turns them into a process exit code.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

DOWNLOAD = "download or export it again"


class ExitCode(enum.IntEnum):
    """Process exit codes; scripts and schedulers may rely on them."""

    OK = 0
    BUG = 1  # an internal error, shown with its traceback
    CONFIG = 2  # configuration or usage, found before any training step
    INPUT = 3  # an input artefact (preset, checkpoint, dataset, adapter) was rejected or could not be had
    STORAGE = 4  # unwritable, full, I/O error
    NUMERICAL = 5  # the loss or a gradient is not finite
    BUSY = 6  # the run folder is in use by another process
    SWEEP = 7  # a sweep ended with failed jobs
    DIFFERENT = 8  # a reproduction whose results are not those of the recorded run
    PREEMPTED = 75  # stopped by SIGTERM, SIGUSR1, SIGHUP or SIGUSR2; can go on (EX_TEMPFAIL: requeue me)
    INTERRUPTED = 130  # stopped by SIGINT


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    what: a sentence. where: config key (`optimizer.learning_rate`) or file. found: the offending value as the user
    wrote it. action: what to do next (allowed values, nearest name, a command).
    """

    what: str
    where: str
    found: str
    action: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n  found: {self.found}\n  fix:   {self.action}"


class LlamaExpError(Exception):
    """A user-facing failure: one or more problems and the exit code they lead to."""

    exit_code = ExitCode.BUG

    def __init__(self, *problems: Problem):
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class ConfigError(LlamaExpError):
    """The configuration is wrong; holds every mistake that was found, not only the first."""

    exit_code = ExitCode.CONFIG


class InputError(LlamaExpError):
    """A preset, checkpoint, dataset or adapter was rejected or could not be had."""

    exit_code = ExitCode.INPUT

    @classmethod
    def about(cls, where: object, what: str, found: str, action: str = DOWNLOAD) -> InputError:
        """The error of one problem; `where` is the file, or a key that names it."""
        return cls(Problem(what, str(where), found, action))


class StorageError(LlamaExpError):
    """A file or folder could not be written."""

    exit_code = ExitCode.STORAGE


class NumericalError(LlamaExpError):
    """A loss or gradient is not finite; nothing of that step was applied or saved."""

    exit_code = ExitCode.NUMERICAL


class BusyError(LlamaExpError):
    """Another live process owns the run folder."""

    exit_code = ExitCode.BUSY


class CallbackError(LlamaExpError):
    """A callback of the user's raised an exception; shown with its traceback."""

    exit_code = ExitCode.BUG


class Preempted(LlamaExpError):
    """SIGTERM, SIGUSR1 or SIGHUP arrived; in the training loop a complete checkpoint was written."""

    exit_code = ExitCode.PREEMPTED


class Pruned(LlamaExpError):
    """SIGUSR2 arrived: a search expects nothing of the run; in the training loop a complete checkpoint was written."""

    exit_code = ExitCode.PREEMPTED


class Interrupted(LlamaExpError):
    """SIGINT arrived; in the training loop a complete checkpoint was written."""

    exit_code = ExitCode.INTERRUPTED
