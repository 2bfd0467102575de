"""Special tokens written in a text, as in a rendered chat."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping


def encode_with_special_tokens(text: str, special: Mapping[str, int], encode: Callable[[str], list[int]]) -> list[int]:
    """Token ids of a text in which the names of special tokens stand for them.

    Args:
        text: such as `<s>[INST] Hello [/INST]`.
        special: name -> id; where two names fit, the longer one counts.
        encode: makes ids of each part between special tokens.
    """
    if not special:
        return encode(text)
    names = sorted(special, key=len, reverse=True)
    ids: list[int] = []
    for part in re.split(f"({'|'.join(map(re.escape, names))})", text):
        if part in special:
            ids.append(special[part])
        elif part:
            ids += encode(part)
    return ids
