"""How every command reads its command line: whole words only, errors in the form of all others."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from llama_exp.config.check.nearest import find_nearest_name
from llama_exp.errors import ConfigError, Problem

MAX_GROUP_SIZE = 999_999  # a file says it with six digits


class Parser(argparse.ArgumentParser):
    """A parser for `llama-exp <command>`.

    Args:
        command: its name.
        description: what it does, in a few sentences.
        examples: whole command lines, shown at the end of the help.
    """

    def __init__(self, command: str, description: str, examples: list[str]):
        super().__init__(
            prog=f"llama-exp {command}",
            description=description,
            epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError; argparse itself would print and leave the process."""
        action = f"see {self.prog} --help"
        if unknown := re.search(r"unrecognized arguments: (-\S+)|invalid choice: '?([^' ]+)", message):
            wrong = (unknown[1] or unknown[2]).partition("=")[0]
            choices = [name for option in self._actions for name in (*option.option_strings, *(option.choices or ()))]
            if match := find_nearest_name(wrong, map(str, choices)):
                action = f"did you mean {match}? Otherwise {action}"
        raise ConfigError(Problem("the command line cannot be understood", self.prog, message, action))


def positive(text: str) -> int:
    """A whole number of at least 1, for `type=`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number


def count(text: str) -> int:
    """A whole number of at least 0, for `type=`."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} must be at least 0")
    return number


def group_size(text: str) -> int:
    """How many inputs share a scale, for `type=`; 0: all of them."""
    number = int(text)
    if not 0 <= number <= MAX_GROUP_SIZE:
        raise argparse.ArgumentTypeError(f"{text} must be 0, for all of the inputs, or from 1 to {MAX_GROUP_SIZE}")
    return number


def size_in_gib(text: str) -> float:
    """A size above 0, for `type=`."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return number
