"""Special tokens in a text: where they stand for themselves, where they are only text, and ids without any token."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def encode_with_special_tokens(
    text: str,
    special: Mapping[str, int],
    encode: Callable[[str], list[int]],
    encode_later: Callable[[str], list[int]] | None = None,
) -> list[int]:
    """Token ids of a text in which the names of special tokens stand for them.

    Args:
        text: such as `<s>[INST] Hello [/INST]`.
        special: name -> id; where two names fit, the longer one counts.
        encode: makes ids of each part between special tokens.
        encode_later: of the parts behind the text's start, if they are encoded in another way.
    """
    ids: list[int] = []
    for number, part in enumerate(_split(text, special)):
        if part in special:
            ids.append(special[part])
        elif part:
            ids += (encode if number == 0 or encode_later is None else encode_later)(part)
    return ids


def hide_names(
    messages: Sequence[Mapping[str, Any]], names: Iterable[str]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Messages in which the names of special tokens are replaced by marks that nobody can type.

    What a person writes is text: without this, a template would put `<|eot_id|>` in a message where the model reads
    the end of a turn. `encode_rendered` turns the marks back.

    Args:
        messages: as a chat template takes them.
        names: of the special tokens.

    Returns:
        The messages, and what each mark stands for; {}: no name was in them.
    """
    marks: dict[str, str] = {}
    pattern = _pattern(names)

    def hide(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(mark, value)
        if isinstance(value, Mapping):
            return {key: item if key == "role" else hide(item) for key, item in value.items()}
        return [hide(item) for item in value] if isinstance(value, list) else value

    def mark(found: re.Match[str]) -> str:
        made = f"text{secrets.token_hex(16)}text"
        marks[made] = found.group()
        return made

    return [hide(message) for message in messages] if pattern.pattern else [dict(m) for m in messages], marks


def encode_rendered(text: str, marks: Mapping[str, str], tokenizer) -> list[int]:
    """Token ids of a rendered chat: the template's special tokens stand for themselves, what was hidden is text.

    Args:
        text: what a template made of the messages of `hide_names`.
        marks: from `hide_names`.
        tokenizer: of the model.
    """
    if not marks:
        return tokenizer.encode_with_special_tokens(text)
    shown = _pattern(marks)
    special = {name: tokenizer.special_id(name) for name in tokenizer.special_tokens}
    return encode_with_special_tokens(
        text,
        special,
        lambda part: tokenizer.encode(shown.sub(lambda found: marks[found.group()], part)),
    )


def decode_visibly(
    token_ids: Iterable[int], is_known: Callable[[int], bool], decode: Callable[[list[int]], str]
) -> str:
    """The text of token ids, in which an id that stands for no token shows as `[no token: 272]`.

    A model's vocabulary may have holes and be larger than its tokenizer's.

    Args:
        token_ids: any whole numbers.
        is_known: whether an id stands for a token.
        decode: the text of ids that do.
    """
    runs = itertools.groupby((int(id_) for id_ in token_ids), key=is_known)
    return "".join(decode(list(run)) if known else "".join(f"[no token: {id_}]" for id_ in run) for known, run in runs)


def _split(text: str, names: Iterable[str]) -> list[str]:
    pattern = _pattern(names)
    return re.split(f"({pattern.pattern})", text) if pattern.pattern else [text]


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Finds the longest of the names; an empty pattern without names."""
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))))
