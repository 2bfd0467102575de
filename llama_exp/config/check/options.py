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
    known, foreign = _split(arguments)
    options = OptionParser().parse_intermixed_args(known)
    return options, [_no_such_option(words) for words in foreign]


def _split(arguments: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The arguments that the parser knows, and the others: each with the value that stands behind it."""
    names = OptionParser()._option_string_actions
    known: list[str] = []
    foreign: list[list[str]] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name = word.partition("=")[0]
        if not word.startswith("-") or word == "-" or name in names or not _is_option(name):
            known.append(word)
            continue
        foreign.append([word])
        if "=" not in word and rest and not rest[0].startswith("-") and "=" not in rest[0]:
            foreign[-1].append(rest.pop(0))
    return known, foreign


def _is_option(name: str) -> bool:
    return name.startswith("--") and name[2:3].isalpha()


def _no_such_option(words: list[str]) -> Problem:
    line = "=".join(words)
    name, has_value, value = line.partition("=")
    key, found = name.lstrip("-").replace("-", "_"), redact_arguments([line])[0]
    if match := advise(key, list_keys()):
        told = f" Keys are written without dashes: {match}={value}" if has_value and "." in match else ""
        problem = describe_unknown_key(key, found, ask_whether(match, key) + told)
    else:
        option = find_nearest_name(name, OptionParser()._option_string_actions)
        action = f"did you mean {option}?" if option else f"keys are written without dashes: {key}=<value>"
        problem = describe_unknown_key(key, found, f"{action} See llama-exp train --help")
    return Problem("no such option", name, problem.found, problem.action)
