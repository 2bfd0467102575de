"""What jobs print: a file each, `<sweep>/output/<number>.log`, and the lines of it that a person must see at once."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path

OUTPUT = "output"  # the folder in that of a sweep for what jobs print
_PIECE_BYTES = 2**18
_LONGEST_LINE = 2**16  # of a line without an end only so many bytes are kept
_MOST_PER_JOB = 20  # then only the file has them: a job that warns at every step would fill the screen
_MOST_INDENTED = 6
_LEVEL = r"(?:WARNING|ERROR|CRITICAL)"
# As llama_exp, logging's default, Hydra's default, other common formats, and `warnings.warn` write them.
_MATTERS = re.compile(
    rf"{_LEVEL}\b|[-\d:,.TZ+ ]*\s{_LEVEL}\b|\[.{{0,120}}\[{_LEVEL}\]|.{{0,80}} - {_LEVEL} - |\S+:\d+: \w*Warning: "
)


def output_path(sweep: Path, number: int) -> Path:
    """The file of what a job prints."""
    return sweep / OUTPUT / f"{number}.log"


def find_log(sweep: Path, number: int, folder: Path) -> Path:
    """Where to read what a job did: the log in its own folder, or what it printed."""
    own = folder / "train.log"
    return own if own.exists() else output_path(sweep, number)


@dataclass
class _Place:
    """How far a job's file was read, what stands there without an end of line, how many messages it had."""

    offset: int = 0
    rest: bytes = b""
    messages: int = 0


@dataclass
class Messages:
    """The warnings and errors that jobs printed, each once for the whole sweep.

    sweep: its folder. said_by: message -> numbers of the jobs that had it, the first one first.
    """

    sweep: Path
    said_by: dict[str, list[int]] = field(default_factory=dict)
    _places: dict[int, _Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """What files hold before the first job starts is an earlier attempt's."""
        for path in (self.sweep / OUTPUT).glob("*.log"):
            with contextlib.suppress(OSError, ValueError):
                self._places[int(path.stem)] = _Place(path.stat().st_size)

    def read(self, number: int) -> list[str]:
        """What the job printed since the last call, and no job before it."""
        place, new = self._places.setdefault(number, _Place()), []
        while lines := _read_lines(output_path(self.sweep, number), place):
            for message in _find_messages(lines):
                jobs = self.said_by.setdefault(message, [])
                if number in jobs:
                    continue
                jobs.append(number)
                if len(jobs) == 1:
                    place.messages += 1
                    if place.messages <= _MOST_PER_JOB:
                        new.append(message)
                    if place.messages == _MOST_PER_JOB + 1:
                        new.append(f"WARNING: more of them in {output_path(self.sweep, number)}")
        return new

    def repeated(self) -> list[tuple[str, list[int]]]:
        """Messages that several jobs had: the message and the jobs after the first."""
        return [(message, jobs[1:]) for message, jobs in self.said_by.items() if len(jobs) > 1]


def _read_lines(path: Path, place: _Place) -> list[str]:
    """The whole lines of the next piece of a file; none at its end, or where it cannot be read."""
    try:
        with open(path, "rb") as file:
            if file.seek(0, 2) < place.offset:  # it was begun anew
                place.offset, place.rest = 0, b""
            file.seek(place.offset)
            piece = file.read(_PIECE_BYTES)
    except OSError:
        return []
    if not piece:
        return []
    place.offset += len(piece)
    *lines, rest = re.split(rb"[\r\n]", place.rest + piece)
    place.rest = rest[:_LONGEST_LINE]
    return [line.decode("utf-8", "replace") for line in lines] or [""]


def _find_messages(lines: list[str]) -> list[str]:
    """Lines that matter, with the indented ones below them."""
    found: list[list[str]] = []
    is_inside = False
    for line in lines:
        if _MATTERS.match(line):
            found.append([line.rstrip()])
            is_inside = True
        elif is_inside and line.startswith("  ") and len(found[-1]) <= _MOST_INDENTED:
            found[-1].append(line.rstrip())
        else:
            is_inside = False
    return ["\n".join(message) for message in found]
