"""Text that may be shown and kept: without secrets, without control characters. Imports no framework.

Secrets are recognised by where they come from (environment variables with a telling name, config keys and command line
arguments with a telling name) and by form (user names and passwords in URLs, `Authorization` headers, Hugging Face
tokens). Everything that a run writes passes through here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

MASK = "***"
# Shorter values are too common as ordinary words to be blotted out wherever they occur.
_SHORTEST_SECRET = 8
_SECRET_VARIABLE = re.compile(r"(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
# Narrower than for variables: `dataset.text_key` and `stop_token` are no secrets.
_SECRET_KEY = re.compile(
    r"(?:^|[_-])(?:secret|password|passwd|passphrase|credentials?)$"
    r"|(?:^|[_-])(?:api|access|secret|private|auth)[_-]?key$|^key$"
    r"|(?:^|(?:^|[_-])(?:auth|access|api|hf|hub|wandb|kaggle|bearer|refresh|session|secret)[_-]?)token$",
    re.IGNORECASE,
)
_PATTERNS = (
    (re.compile(r"\b((?:https?|ssh|git|ftp)://)[^/\s@]+@"), rf"\1{MASK}@"),
    (re.compile(r"(authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token)\s+)?)[^\s\"']+", re.I), rf"\1{MASK}"),
    (re.compile(r"\bhf_[A-Za-z0-9]{20,}"), MASK),
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def redact(text: str) -> str:
    """The text with every known secret replaced by `***`."""
    values = {value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def is_secret_name(name: str) -> bool:
    """Whether a config key or command line option of this name holds a secret; only the last dotted part counts."""
    return bool(_SECRET_KEY.search(name.lstrip("-+~").rsplit(".", 1)[-1]))


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """Command line arguments without secrets: `wandb.api_key=abc` becomes `wandb.api_key=***`."""
    redacted = []
    previous_is_secret = False
    for argument in arguments:
        name, separator, _ = argument.partition("=")
        if previous_is_secret:
            redacted.append(MASK)
        elif separator and is_secret_name(name):
            redacted.append(f"{name}={MASK}")
        else:
            redacted.append(redact(argument))
        previous_is_secret = argument.startswith("--") and not separator and is_secret_name(argument)
    return redacted


def printable(text: str) -> str:
    """The text with control characters spelled out, except newline and tab.

    Why: names and samples come from elsewhere; an escape sequence in them would steer the reader's terminal.
    """
    return _CONTROLS.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)
