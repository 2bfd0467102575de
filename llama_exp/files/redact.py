"""Text that may be shown and kept: without secrets, without control characters. Imports no framework.

Secrets are recognised by where they come from (environment variables with a telling name, config keys and command line
arguments with a telling name) and by form (user names, passwords and signed queries in URLs, headers that carry keys
and cookies, tokens with a known prefix). Everything that a run writes passes through here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

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
# A value of any URL scheme ends at a blank or a quote. `host:8080/model@main` names a port, no password.
_USER_INFO = r"\b([a-z][a-z0-9+.-]*://)(?:[^/\s?#:@\"'<>]*:(?!\d{1,5}(?:[/?#]|$))[^\s\"'<>]*|[^/\s?#:\"'<>]+)@"
_QUERY_NAME = (
    r"(?:[\w.%-]*(?:token|secret|passw(?:or)?d|signature|credentials?|key(?:[_-]?(?:pair[_-]?)?id)?|auth)|sig)"
)
# Headers come as lines, as `'name': 'value'` of a dictionary, and as pairs `('name', 'value')`.
_HEADER_END = r"([\"']?\s*[:=,]\s*[\"']?)"
_KEY_HEADER = r"\b((?:x-[\w-]*(?:api-?key|token|secret|signature|auth[\w-]*)|api-key|private-token|x-auth[\w-]*))"
_PATTERNS = (
    (re.compile(_USER_INFO, re.I), rf"\1{MASK}@"),
    (re.compile(rf"([?&;#]{_QUERY_NAME}=)[^&;#\s\"'<>]+", re.I), rf"\1{MASK}"),
    (
        re.compile(rf"\b((?:proxy-)?authorization){_HEADER_END}((?:(?:bearer|basic|token|digest)\s+)?)[^\s\"']+", re.I),
        rf"\1\2\3{MASK}",
    ),
    (re.compile(rf"{_KEY_HEADER}{_HEADER_END}[^\s\"',;&]+", re.I), rf"\1\2{MASK}"),
    # A cookie holds blanks; it ends with its quote or its line.
    (re.compile(r"\b((?:set-)?cookie)([\"']?\s*[:,]\s*[\"']?)[^\"'\r\n]+", re.I), rf"\1\2{MASK}"),
    (re.compile(r"\b(?:hf|gh[opsur]|github_pat|glpat|wandb_v1|xox[abpr]|sk)[_-][A-Za-z0-9_-]{20,}"), MASK),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), MASK),
)
# `name: value` and `name=value`, as command lines, YAML and JSON write them; a value without its closing quote, brace
# or bracket goes to the end of the line.
_ASSIGNMENT = re.compile(r"([\w.+~-]+)[\"']?\s*[:=]\s*")
_VALUE = re.compile(
    r"\"(?:[^\"\\]|\\.)*(?:\"|$)|'(?:[^'\\]|\\.)*(?:'|$)|\{[^}]*\}?|\[[^\]]*\]?|[^\s,}\]]+", re.MULTILINE
)
_remembered: set[str] = set()
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def list_secrets() -> list[str]:
    """Every value that is a secret by where it comes from, the longest first."""
    values = {value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)} | _remembered
    return sorted((value for value in values if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)


def redact(text: str, secrets: Sequence[str] | None = None) -> str:
    """The text with every known secret replaced by `***`.

    Args:
        text: any.
        secrets: `list_secrets()`, for who has many texts; None: asked for here.
    """
    for value in list_secrets() if secrets is None else secrets:
        text = text.replace(value, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def remember_secrets(config: Any) -> None:
    """From now on `redact` masks the values of the config's keys with a telling name, wherever they turn up.

    Why: a class of the user's own gets its password from the config and may repeat it in an error's text.
    """
    for key, value in config.items() if isinstance(config, Mapping) else ((None, entry) for entry in config):
        if isinstance(value, str):
            if key is not None and is_secret_name(str(key)):
                _remembered.add(value)
        elif isinstance(value, Mapping | list | tuple):
            remember_secrets(value)


def redact_assignments(text: str) -> str:
    """The text with the values of telling names masked: `{user: me, api_key: abc}` becomes `{user: me, api_key: ***}`.

    For what a user typed, not for prose: there `key: value` is an ordinary line.
    """
    parts, end = [], 0
    for match in _ASSIGNMENT.finditer(text):
        if match.start() < end or not is_secret_name(match[1]):
            continue
        value = _VALUE.match(text, match.end())
        if value is None:
            continue
        # An override is one assignment, commas and all.
        whole = match.start() == 0 and match[0].endswith("=")
        parts += [text[end : match.end()], MASK]
        end = len(text) if whole else value.end()
    return "".join([*parts, text[end:]])


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
            redacted.append(redact_assignments(redact(argument)))
        previous_is_secret = argument.startswith("--") and not separator and is_secret_name(argument)
    return redacted


def printable(text: str) -> str:
    """The text with control characters spelled out, except newline and tab.

    Why: names and samples come from elsewhere; an escape sequence in them would steer the reader's terminal.
    """
    return _CONTROLS.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)
