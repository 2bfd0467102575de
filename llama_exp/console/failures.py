"""What went wrong, told: on the terminal, and for a sweep's jobs in `failures.jsonl` of the sweep's folder."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llama_exp.console.logs import say
from llama_exp.errors import ConfigError, ExitCode, LlamaExpError, Problem, StorageError
from llama_exp.files.json_file import read_lines
from llama_exp.files.redact import printable, redact, redact_arguments, redact_assignments
from llama_exp.files.writing import append_line
from llama_exp.signals import Stopped


def tell_failure(error: BaseException, debug: bool) -> ExitCode:
    """Tells the user what went wrong and returns the exit code: a message for what they can mend, else a traceback."""
    if isinstance(error, Stopped):
        error = error.told("before the run began")
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    if isinstance(error, BrokenPipeError):  # `train.py --help | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    code = error.exit_code if isinstance(error, LlamaExpError) else ExitCode.BUG
    text = "".join(traceback.format_exception(error)) if debug or code is ExitCode.BUG else str(error)
    say(text.rstrip())
    return code


def explain_hydra(error: BaseException) -> BaseException:
    """An exception that reached Hydra's caller, typed. Jobs keep theirs, so an OSError is from making a folder."""
    if isinstance(error, (HydraException, OmegaConfBaseException)) or _is_of_hydra(error):
        cause = error if str(error) else error.__cause__
        action = "see --hydra-help, or run with debug=true for the traceback"
        typed: LlamaExpError = ConfigError(
            Problem("Hydra cannot do this", "command line", redact_assignments(_first_line(cause)), action)
        )
    elif isinstance(error, OSError) and error.filename is not None:
        action = "choose another place: hydra.run.dir=<folder>, for a sweep hydra.sweep.dir=<folder>"
        typed = StorageError(Problem("cannot be written", str(error.filename), str(error.strerror), action))
    else:
        return error
    typed.__cause__ = error
    return typed


def _is_of_hydra(error: BaseException) -> bool:
    """Whether an ordinary exception was raised in Hydra or one of its plug-ins; jobs' own do not get here."""
    if not isinstance(error, (ValueError, TypeError, LookupError, AttributeError, AssertionError, ImportError)):
        return False
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [module.partition(".")[0] for module in modules]
    return bool({"hydra", "hydra_plugins"} & set(packages)) and packages[-1] != "llama_exp"


def _first_line(error: BaseException | None) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


class Failures:
    """The failed jobs of one sweep, one line each, whichever process they ran in.

    Args:
        sweep_dir: the folder that holds the jobs' folders. What it records already belongs to an earlier sweep.
        constants: overrides that are the same in all of the sweep's jobs; the table says them once.
    """

    def __init__(self, sweep_dir: Path, constants: Sequence[str] = ()):
        self._constants = redact_arguments(constants)
        self.path = sweep_dir / "failures.jsonl"
        self._num_earlier = len(self.read())

    def add(self, number: int, overrides: list[str], error: BaseException, exit_code: int) -> None:
        """Records a job's failure, whichever process it ran in; raises `StorageError`."""
        lines = printable(redact(str(error))).splitlines() or [""]
        entry = {
            "job": number,
            "overrides": redact_arguments(overrides),
            "exit_code": int(exit_code),
            "error": type(error).__name__,
            "message": lines[0],
        }
        append_line(self.path, entry)

    def read(self) -> list[dict[str, Any]]:
        """All recorded failures, in the order in which they happened."""
        return read_lines(self.path) if self.path.exists() else []

    def show(self) -> int:
        """Prints a table of the jobs that have failed since, on standard error, and returns their number."""
        entries = self.read()[self._num_earlier :]
        if entries:
            title = f"{len(entries)} failed; details in {self.path}"
            same = f"\nall with {' '.join(self._constants)}" if self._constants else ""
            table = Table(title=Text(title + same), title_justify="left")
            for column in ("job", "overrides", "exit code", "error"):
                table.add_column(column, overflow="fold")
            for entry in entries:
                overrides = " ".join(line for line in entry["overrides"] if line not in self._constants)
                message = f"{entry['error']}: {entry['message']}"
                table.add_row(str(entry["job"]), Text(overrides), str(entry["exit_code"]), Text(message))
            Console(stderr=True).print(table)
        return len(entries)
