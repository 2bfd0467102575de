"""What each part of a run accepts: closed choices, limits of single values, and values that exclude each other.

One module for each config section. All read it from here: the schema takes its types, the command line tells every
problem of every section at once, and a part's constructor raises the first problem of its own arguments. Said twice,
the two would drift apart. Imports no framework.
"""

from __future__ import annotations

import enum
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from llama_exp.errors import Problem

LARGEST = 2**31 - 1  # sizes and counters are int32 on some device or other
Choice = TypeVar("Choice", bound=enum.Enum)
Rule = Callable[[Mapping[str, Any]], Iterator[Problem]]


class ImpossibleValue(ValueError):
    """An argument that no part accepts; `problem` says which.

    Keras raises an error of a layer's call anew, with a longer text in the place of the problem.
    """

    @property
    def problem(self) -> Problem:
        """What is wrong, unless the error was raised anew."""
        return self.args[0]

    def __str__(self) -> str:
        problem = self.args[0]
        if not isinstance(problem, Problem):
            return str(problem)
        return f"{problem.where}: {problem.what} ({problem.found}): {problem.action}"


@dataclass(frozen=True)
class Limit:
    """The values that one key accepts.

    accepts: whether a value is one of them. words: which they are, for a person.
    """

    accepts: Callable[[Any], bool]
    words: str


def is_number(value: Any) -> bool:
    """Whether a value is a real number; truth values are none."""
    return not isinstance(value, bool) and isinstance(value, numbers.Real)


def is_whole(value: Any, low: int) -> bool:
    """Whether a value is an integer from `low` on that an int32 holds."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral) and low <= int(value) <= LARGEST


def allow_null(limit: Limit) -> Limit:
    """The same limit for a key that may be null."""
    return Limit(lambda value: value is None or limit.accepts(value), f"{limit.words}, or null")


def allow_from(low: float) -> Limit:
    """A number not below `low`."""
    return Limit(lambda value: is_number(value) and value >= low, f"a number of at least {low}")


def is_text(value: Any) -> bool:
    """Whether a value can be written as UTF-8: a byte that is none of it comes as half a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


ANY = Limit(lambda value: True, "a finite number")
COUNT = Limit(lambda value: is_whole(value, 1), "an integer of at least 1")
COUNT_OR_ZERO = Limit(lambda value: is_whole(value, 0), "an integer of at least 0")
POSITIVE = Limit(lambda value: is_number(value) and value > 0, "a number above 0")
PROBABILITY = Limit(lambda value: is_number(value) and 0 <= value < 1, "a number in [0, 1)")
SHARE = Limit(lambda value: is_number(value) and 0 <= value <= 1, "a number in [0, 1]")
INSIDE = Limit(lambda value: is_number(value) and 0 < value < 1, "a number between 0 and 1, both excluded")
TEXTS = Limit(lambda value: all(map(is_text, value or ())), "texts in UTF-8")
FILLED = Limit(lambda value: bool(value) and all(value), "at least one entry, none of them empty")


@dataclass(frozen=True)
class Limits:
    """The limits of one config section.

    section: its name; empty for keys that belong to none. values: key -> limit; a key without one may be any finite
    number or text. together: yield the problems of values that are possible alone, but not side by side; asked only
    where each value is possible.
    """

    section: str
    values: Mapping[str, Limit]
    together: tuple[Rule, ...] = ()

    def path_of(self, key: str) -> str:
        """The dotted path of a key."""
        return f"{self.section}.{key}" if self.section else key

    def value_problems(
        self, values: Mapping[str, Any], describe: Callable[[str, Any], str] = lambda key, value: f"{key}={value!r}"
    ) -> Iterator[Problem]:
        """A problem for each value outside its limit.

        Args:
            values: key -> value.
            describe: (key, value) -> the text to show as what was found.
        """
        for key, value in values.items():
            limit = self.values.get(key, ANY)
            if is_number(value) and not isinstance(value, int) and not math.isfinite(value):
                what = "is not a finite number"
            elif not limit.accepts(value):
                what = "is an impossible value"
            else:
                continue
            yield Problem(what, self.path_of(key), describe(key, value), f"give {limit.words}")

    def pair_problems(self, values: Mapping[str, Any]) -> Iterator[Problem]:
        """The problems of values that are possible alone."""
        for rule in self.together:
            yield from rule(values)

    def require(self, **values: Any) -> None:
        """Raises ImpossibleValue with the first problem of a part's arguments."""
        raise_first(self.value_problems(values))
        raise_first(self.pair_problems(values))


def raise_first(problems: Iterator[Problem]) -> None:
    """Raises ImpossibleValue with the first of `problems`, if there is one."""
    for problem in problems:
        raise ImpossibleValue(problem)


def name_choices(choices: type[enum.Enum]) -> tuple[str, ...]:
    """The names of a closed choice, as YAML and the command line write them."""
    return tuple(choice.value for choice in choices)


def choose(choices: type[Choice], value: Any, where: str) -> Choice:
    """The member of a closed choice that `value` is or names.

    Raises:
        ImpossibleValue: it names none; `where`, a config key, stands in the message.
    """
    try:
        return choices(value)
    except ValueError:
        _refuse_choice(choices, value, where)


def _refuse_choice(choices: type[enum.Enum], value: Any, where: str) -> NoReturn:
    found, action = f"{where.rpartition('.')[2]}={value!r}", f"give one of {', '.join(name_choices(choices))}"
    raise ImpossibleValue(Problem("is not one of the choices", where, found, action)) from None
