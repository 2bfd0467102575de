"""Where log lines go: the terminal, above a live progress bar if there is one, and `train.log` in the run folder.

Everything that a run tells goes through the logger `llama_exp`. Its lines hold no secrets and no control characters,
and a full disk or a reader that went away (`... 2>&1 | head`) never stops the training.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llama_exp.files.process import ALONE, Process
from llama_exp.files.redact import printable, redact
from llama_exp.files.writing import FILE_MODE, OWN, storage_errors

LOGGER = logging.getLogger("llama_exp")
# Marks a line that a live progress bar shows anyway; it goes to the terminal only where there is no bar.
SHOWN_BY_BAR = {"shown_by_bar": True}
# Marks a line for `train.log` alone: right, but nothing that a person at a terminal can use.
FOR_THE_RECORD = {"for_the_record": True}


def attach(handler: logging.Handler) -> None:
    """Sends the lines of the logger `llama_exp` to the handler, and no longer to the root logger's."""
    LOGGER.addHandler(handler)
    LOGGER.propagate = False
    LOGGER.setLevel(logging.INFO)


def detach(handler: logging.Handler) -> None:
    """Closes the handler; after the last one lines go to the root logger again."""
    LOGGER.removeHandler(handler)
    handler.close()
    if not LOGGER.handlers:
        LOGGER.propagate = True
        LOGGER.setLevel(logging.NOTSET)


def attach_console(process: Process = ALONE) -> None:
    """Sends log lines to standard error, or nowhere if this process is not the run's writer.

    A second call changes nothing.
    """
    if not any(isinstance(handler, _AT_CONSOLE) for handler in LOGGER.handlers):
        # Without any handler Python would print warnings by itself.
        attach(ConsoleHandler() if process.is_writer else logging.NullHandler())


def detach_console() -> None:
    """Undoes `attach_console`."""
    for handler in [handler for handler in LOGGER.handlers if isinstance(handler, _AT_CONSOLE)]:
        detach(handler)


def name_lines(name: str | None) -> None:
    """From now on each line on the terminal begins with a name: `job 3 | loss 2.8912`; None: without.

    For processes that share a terminal; none of them has a live line there, which the others' lines would tear.
    """
    ConsoleHandler.name_of_lines = name


def say(text: str) -> None:
    """Writes to standard error, above a live area if there is one, or nowhere if nobody can read it any more.

    Secrets are masked and control characters spelled out; each line has the name that `name_lines` gave.
    """
    text = printable(redact(text)).rstrip("\n")
    if ConsoleHandler.name_of_lines is not None:
        text = "\n".join(f"{ConsoleHandler.name_of_lines} | {line}" for line in text.split("\n"))
    # ValueError: the stream is closed. AttributeError: there is none (sys.stderr is None).
    with contextlib.suppress(OSError, ValueError, AttributeError):
        (ConsoleHandler.print_above_bar or write_line)(text)


def log_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Logs a title and aligned lines `name  value`."""
    width = max((len(name) for name, _ in rows), default=0)
    LOGGER.info("%s", "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)]))


class ConsoleHandler(logging.Handler):
    """Writes to standard error as it is at the time of the line; plain text without control characters."""

    # Set while a progress bar is live: prints a line above it.
    print_above_bar: Callable[[str], None] | None = None
    # Set where several processes write to one terminal: whose lines these are.
    name_of_lines: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_LineFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the line, or drops it if nobody can read it any more."""
        if getattr(record, "for_the_record", False):
            return
        if ConsoleHandler.print_above_bar is not None and getattr(record, "shown_by_bar", False):
            return
        say(self.format(record))


_AT_CONSOLE = (ConsoleHandler, logging.NullHandler)


class LogFile(logging.Handler):
    """Appends to a log file, each line with time and level; after an error it says so once and stays silent."""

    def __init__(self, path: Path):
        super().__init__()
        self._path = path
        with storage_errors(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | OWN
            self._descriptor: int | None = os.open(path, flags, FILE_MODE)
        self.setFormatter(_RecordFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Appends the record."""
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, (self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except OSError as error:
            self.close()
            LOGGER.warning("%s cannot be written any more: %s", self._path, error.strerror)

    def note_error(self, reason: str, error: BaseException | None) -> None:
        """Appends what ended the run, with the traceback of `error`; the entry point tells it on the terminal."""
        trace = None if error is None else (type(error), error, error.__traceback__)
        self.handle(LOGGER.makeRecord(LOGGER.name, logging.ERROR, "", 0, "%s", (reason,), trace))

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        super().close()


def write_line(line: str) -> None:
    """Writes one line to standard error; characters that its encoding lacks are spelled out."""
    stream = sys.stderr
    encoding = stream.encoding or "ascii"
    stream.write((line + "\n").encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname}: "
        return level + super().format(record)


class _RecordFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = printable(redact(super().format(record)))
        stamp = time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(record.created))
        # Indented, so that no line inside a message can pass for a record of its own.
        return f"{stamp} {record.levelname} " + text.replace("\n", "\n    ")
