"""Text that a person gives a command: as an argument, on standard input, or typed; UTF-8 or refused. No framework."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from llama_exp.errors import ConfigError, Problem

STANDARD_INPUT = "standard input"
_SHOWN = 20  # characters in front of the wrong byte


def require_text(text: str, where: str) -> str:
    """The text, if all of it could be read.

    Python keeps a byte that is not text as a lone surrogate, in arguments always and on standard input by
    `keep_bytes`; no tokenizer takes one.

    Args:
        text: as Python read it.
        where: option or stream.

    Raises:
        ConfigError: a byte of it is not text.
    """
    wrong = next((number for number, letter in enumerate(text) if "\ud800" <= letter <= "\udfff"), None)
    if wrong is None:
        return text
    byte, before = ord(text[wrong]) - 0xDC00, text[max(0, wrong - _SHOWN) : wrong]
    found = f"byte 0x{byte:02x}" if 0x80 <= byte <= 0xFF else f"U+{ord(text[wrong]):04X}"
    action = "convert it, e.g. from Latin-1: iconv -f ISO-8859-1 -t UTF-8 prompt.txt | llama-exp generate ..."
    raise ConfigError(Problem("this is not UTF-8 text", where, f"{found} behind {before!r}", action))


def keep_bytes() -> None:
    """Lets standard input give bytes that are not text as surrogates, for `require_text`."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")


def read_standard_input() -> str:
    """All of standard input.

    Raises:
        ConfigError: a byte of it is not text.
    """
    keep_bytes()
    return require_text(sys.stdin.read(), STANDARD_INPUT)


def lines_of_standard_input() -> Iterator[str]:
    """Lines of standard input without their ends.

    Raises:
        ConfigError: a byte of a line is not text; the lines before it have been given.
    """
    keep_bytes()
    for number, line in enumerate(sys.stdin, start=1):
        yield require_text(line.rstrip("\n"), f"{STANDARD_INPUT}, line {number}")
