"""What `@hydra.main` does, for a command line that is checked already."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser

from llama_exp.config import plugins
from llama_exp.config.check.command_line import check_arguments
from llama_exp.config.check.composition import VERSION_BASE
from llama_exp.config.conf_folder import CONF


def run_hydra(arguments: Sequence[str], job: Callable[..., Any]) -> None:
    """What `@hydra.main` does, but `sys.argv` stays as typed, and `job` a function that launchers can send by name."""
    version.setbase(VERSION_BASE)
    plugins.register()
    parser = get_args_parser()
    options = parser.parse_args(arguments)
    _run_hydra(options, parser, task_function=job, config_path=str(CONF), config_name="config")


def asks_for_completion(arguments: Sequence[str]) -> bool:
    """Whether a shell asks how a line goes on."""
    asks = {"-sc", "--shell-completion"} & set(arguments)
    return bool(asks) and any(argument.startswith("query=") for argument in arguments)


def complete(arguments: Sequence[str], job: Callable[..., Any]) -> None:
    """Answers the shell; what goes wrong with a line that is not finished has no place in its prompt."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        with contextlib.suppress(Exception, SystemExit):
            run_hydra(check_arguments(arguments).arguments, job)
