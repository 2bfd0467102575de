"""The console script `llama-exp`: from any folder, what `train.py` does in the repository."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import llama_exp

USAGE = """usage: llama-exp <command> [<part>=<choice> | <key>=<value> ...]

  train    train or fine-tune; `llama-exp train --help` lists parts, choices and values
  plan     parameters, tokens, arithmetic and memory of what train would do, without doing it

  --help   this text
  --version

  --config-dir DIR behind a command adds your own choices from DIR/<part>/*.yaml"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command (default: the process' own command line) and leaves the process with its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command == "train":
        _train(rest)
    elif command in ("-sc", "--shell-completion"):
        _train(arguments)  # what the completion script of `llama-exp train -sc install=bash` asks for
    elif command == "plan":
        sys.exit(_plan(rest))
    elif command in ("-h", "--help"):
        print(USAGE)
    elif command == "--version":
        print(f"llama-exp {llama_exp.__version__}")
    else:
        print(f"no such command: {command}\n\n{USAGE}", file=sys.stderr)
        sys.exit(2)


def _train(arguments: Sequence[str]) -> None:
    from llama_exp import train

    train.main(arguments)


def _plan(arguments: Sequence[str]) -> int:
    """Prints the plan of a sound command line; returns the exit code."""
    from rich.console import Console

    from llama_exp import plan
    from llama_exp.check import check_arguments
    from llama_exp.errors import ConfigError, ExitCode
    from llama_exp.failures import report

    try:
        config = check_arguments(arguments).config
    except ConfigError as error:
        return report(error, debug=False)
    planned = plan.make_plan(config)
    if planned is None:
        print("the model or data set is a class of yours: only building it shows its size", file=sys.stderr)
        return ExitCode.CONFIG
    plan.show(planned, Console())
    return ExitCode.OK
