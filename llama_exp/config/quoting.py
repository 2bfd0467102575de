"""Texts as values of Hydra's grammar, for commands that are printed and for what Hydra is given."""

from __future__ import annotations

import re

_RESERVED = ("true", "false", "null", "nan", "inf")


def quote(text: str) -> str:
    """Text as a quoted value of Hydra's grammar."""
    return "'" + re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text) + "'"


def plain_or_quoted(text: str) -> str:
    """Text as a value of Hydra's grammar, without quotes where it needs none."""
    is_plain = re.fullmatch(r"(\.{1,2}/|[A-Za-z_/])[\w/.@-]*", text, re.ASCII) and text.lower() not in _RESERVED
    return text if is_plain else quote(text)
