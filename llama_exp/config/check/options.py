"""The options of `train` and `plan`: Hydra's, and `--from`; what is no option is refused with the key that it means."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

import llama_exp
from llama_exp.config.check.nearest import advise, ask_whether, find_nearest_name
from llama_exp.config.check.typed import describe_unknown_key, list_keys
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.redact import redact_arguments

OPTIONS: tuple[str, ...] = (
    "--help",
    "--hydra-help",
    "--version",
    "--cfg",
    "--resolve",
    "--package",
    "--run",
    "--multirun",
    "--info",
)
_SOURCES = ("--shell-completion", "--config-path", "--config-name", "--config-dir", "--from")


class OptionParser(argparse.ArgumentParser):
    """Hydra's own parser, with errors in the form of all others."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False, parents=[get_args_parser()])
        self.add_argument("--from", dest="saved", metavar="FILE")

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError; argparse itself would print and leave the process."""
        action = "see llama-exp train --help"
        raise ConfigError(Problem("the command line cannot be understood", "command line", message, action))


def parse_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[Problem]]:
    """The options and overrides of a command line, and a problem for each option that there is not.

    Raises:
        ConfigError: an option lacks its value, or has an impossible one.
        SystemExit: `--version`, once it is printed.
    """
    if "--version" in arguments:
        print(f"llama-exp {llama_exp.__version__}")
        raise SystemExit(0)
    options, unknown = OptionParser().parse_known_intermixed_args(list(arguments))
    foreign = [word for word in unknown if word.startswith("-")]
    options.overrides += [word for word in unknown if not word.startswith("-")]
    return options, [_no_such_option(_with_value(word, arguments, options)) for word in foreign]


def _with_value(word: str, arguments: Sequence[str], options: argparse.Namespace) -> str:
    """An option with the value that stands behind it, which is no override then."""
    value = next(iter(arguments[list(arguments).index(word) + 1 :]), "-")
    if "=" in word or "=" in value or value.startswith("-") or value not in options.overrides:
        return word
    options.overrides.remove(value)
    return f"{word}={value}"


def _no_such_option(line: str) -> Problem:
    name, has_value, value = line.partition("=")
    key, found = name.lstrip("-").replace("-", "_"), redact_arguments([line])[0]
    if match := advise(key, list_keys()):
        told = f" Keys are written without dashes: {match}={value}" if has_value and "." in match else ""
        problem = describe_unknown_key(key, found, ask_whether(match, key) + told)
    else:
        option = find_nearest_name(name, (*OPTIONS, *_SOURCES))
        action = f"did you mean {option}?" if option else f"keys are written without dashes: {key}=<value>"
        problem = describe_unknown_key(key, found, f"{action} See llama-exp train --help")
    return Problem("no such option", name, problem.found, problem.action)
