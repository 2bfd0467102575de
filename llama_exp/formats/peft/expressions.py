"""Regular expressions of PEFT's files over module names, matched in a time that their author cannot choose.

Python's own `re` can take years over forty characters. Whether a *whole* name matches needs no search: the places of
the name that a part of the expression can end at are a set, and the next part goes on from all of them at once.
Understood is what makes sense for names: characters and classes, groups, alternatives, repetitions, anchors, and
looking ahead or behind. A set of places has no memory, so back references and possessive parts are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from llama_exp.errors import InputError

MAX_CHARACTERS = 4000  # unsloth's have about 300
MAX_DEPTH = 50  # of groups in groups
MAX_STEPS = 2_000_000  # of all expressions of a file together; one of unsloth's takes about 50 for a name

Places = frozenset[int]
Matches = Callable[[str], bool]
# Takes a name and the places where a part may begin, gives those where it may end.
Part = Callable[[str, Places], Places]

_LONGEST_SHOWN = 80
_LOOKS = {"(?=": (True, 1), "(?!": (False, 1), "(?<=": (True, -1), "(?<!": (False, -1)}
_GROUP = re.compile(r"\((?:\?(?:P<\w+>|<?[=!]|:))?")
_CLASS = re.compile(r"\[\^?\]?(?:[^\]\\]|\\.)*\]")
_ESCAPE = re.compile(r"\\[^0-9a-zA-Z]|\\[dDwWsSntrfv]")
_REPETITION = re.compile(r"[*+?]|\{(?:\d+(?:,\d*)?|,\d+)\}")
_ANCHOR = re.compile(r"[\^$]|\\[bBAZ]")


class Expressions:
    """Makes expressions of one file, which share its number of steps.

    Args:
        path: the file, for messages.
    """

    def __init__(self, path: Path):
        self._path, self._steps = path, 0

    def compile(self, key: str, text: str) -> Matches:
        """What says whether a whole module name matches `text`, the value or a part of the value of `key`.

        Raises:
            InputError: it is no expression, or of a kind that is not understood.
        """
        if len(text) > MAX_CHARACTERS:
            raise self._refusal(key, text, f"it has {len(text)} characters, more than {MAX_CHARACTERS}")
        try:
            re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise self._refusal(key, text, f"it is no regular expression: {error}") from error
        try:
            part = _Reader(text, self._count).read()
        except _NotUnderstood as error:
            raise self._refusal(key, text, str(error)) from error

        def matches(name: str) -> bool:
            try:
                return len(name) in part(name, frozenset([0]))
            except _NotUnderstood as error:
                raise self._refusal(key, text, str(error)) from error

        return matches

    def _count(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _NotUnderstood(f"matching takes more than {MAX_STEPS} steps")

    def _refusal(self, key: str, text: str, reason: str) -> InputError:
        shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
        instead = '["q_proj", "v_proj"]' if key.endswith("modules") else '{"q_proj": 16, "layers.0.mlp.up_proj": 4}'
        action = f'write names of modules into the file instead, or the ends of names: "{key}": {instead}'
        return InputError.about(self._path, f"{key}: a regular expression cannot be used", f"{shown}: {reason}", action)


class _NotUnderstood(ValueError):
    """A part of an expression that has no counterpart here."""


class _Reader:
    """Makes a `Part` of the text of an expression, which `re` has found valid."""

    def __init__(self, text: str, count: Callable[[], None]):
        self._text, self._count, self._at, self._depth = text, count, 0, 0

    def read(self) -> Part:
        """The whole expression."""
        part = self._alternatives()
        if self._at < len(self._text):
            raise _NotUnderstood(f"{self._text[self._at :][:20]!r} is not understood")
        return part

    def _alternatives(self) -> Part:
        options = [self._sequence()]
        while self._taken("|"):
            options.append(self._sequence())
        if len(options) == 1:
            return options[0]
        return lambda name, starts: frozenset().union(*(option(name, starts) for option in options))

    def _sequence(self) -> Part:
        parts = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            parts.append(self._repeated(self._atom()))

        def run(name: str, starts: Places) -> Places:
            for part in parts:
                if not starts:
                    break
                starts = part(name, starts)
            return starts

        return run

    def _repeated(self, part: Part) -> Part:
        while match := _REPETITION.match(self._text, self._at):
            self._at = match.end()
            if self._text.startswith("+", self._at):
                raise _NotUnderstood(f"{match[0]}+ is a possessive repetition")
            self._taken("?")  # lazy or not, the same names match
            part = _repeat(part, *_bounds(match[0]))
        return part

    def _atom(self) -> Part:
        text, at = self._text, self._at
        if text[at] == "(":
            return self._group()
        if match := _ANCHOR.match(text, at):
            self._at = match.end()
            return self._anchor(match[0])
        match = _CLASS.match(text, at) or _ESCAPE.match(text, at)
        if match is None and text[at] == "\\":
            kind = "a back reference" if text[at + 1].isdigit() else "an escape that is not understood"
            raise _NotUnderstood(f"{text[at : at + 2]} is {kind}")
        source = match[0] if match else text[at]
        self._at = at + len(source)
        return self._character(re.compile(source if match or source == "." else re.escape(source)))

    def _group(self) -> Part:
        opening = _GROUP.match(self._text, self._at)
        beginning = opening[0] if opening else "("
        self._at += len(beginning)
        if beginning == "(" and self._text.startswith("?", self._at):
            raise _NotUnderstood(f"a group of the kind {self._text[self._at - 1 : self._at + 3]!r} is not understood")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _NotUnderstood(f"groups in more than {MAX_DEPTH} groups")
        part = self._alternatives()
        self._depth -= 1
        self._at += 1  # the closing parenthesis
        return part if beginning not in _LOOKS else self._look(part, *_LOOKS[beginning])

    def _character(self, accepted: re.Pattern[str]) -> Part:
        def run(name: str, starts: Places) -> Places:
            self._count()
            return frozenset(at + 1 for at in starts if accepted.match(name, at))

        return run

    def _anchor(self, symbol: str) -> Part:
        anchor = re.compile(symbol)

        def run(name: str, starts: Places) -> Places:
            self._count()
            return frozenset(at for at in starts if anchor.match(name, at))

        return run

    def _look(self, part: Part, wanted: bool, direction: int) -> Part:
        def found(name: str, at: int) -> bool:
            if direction > 0:
                return bool(part(name, frozenset([at])))
            return at in part(name, frozenset(range(at + 1)))

        def run(name: str, starts: Places) -> Places:
            self._count()
            return frozenset(at for at in starts if found(name, at) == wanted)

        return run

    def _taken(self, symbol: str) -> bool:
        here = self._text.startswith(symbol, self._at)
        self._at += here
        return here


def _bounds(repetition: str) -> tuple[int, int | None]:
    """Fewest and most times; None: without end."""
    if repetition in "*+?":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[repetition]
    low, comma, high = repetition[1:-1].partition(",")
    return int(low or 0), (int(high) if high else None) if comma else int(low)


def _repeat(part: Part, low: int, high: int | None) -> Part:
    def run(name: str, starts: Places) -> Places:
        for _ in range(low):
            before, starts = starts, part(name, starts)
            if starts == before or not starts:
                break  # more times change nothing
        reached, new = starts, starts
        times = low
        while new and (high is None or times < high):
            new = part(name, new) - reached
            reached |= new
            times += 1
        return reached

    return run
