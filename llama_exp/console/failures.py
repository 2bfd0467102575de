"""What went wrong, told on the terminal."""

from __future__ import annotations

import os
import sys
import traceback

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from llama_exp.console.logs import say
from llama_exp.errors import ConfigError, ExitCode, LlamaExpError, Problem, StorageError
from llama_exp.files.redact import redact_assignments
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
