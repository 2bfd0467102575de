"""The tokens that `tokenizer_config.json` and its neighbours add to a vocabulary, in transformers' order (5.23)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_exp.tokenizer.ends import token_name

# transformers' order of named tokens; other keys that end in _token follow.
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_EXTRA = ("extra_special_tokens", "additional_special_tokens")  # two names of one thing, the newer first
_FLAGS = ("lstrip", "rstrip", "single_word")


@dataclass(frozen=True)
class AddedToken:
    """A token that stands beside the model's own vocabulary.

    Attributes:
        content: its name.
        id: as stated; None: the next free one, or that of a token of this name.
        special: text never becomes it.
        flags: of `lstrip`, `rstrip`, `single_word` those that are set.
    """

    content: str
    id: int | None
    special: bool
    flags: tuple[str, ...] = ()


def read_added_tokens(tokenizer_config: Mapping[str, Any]) -> list[AddedToken]:
    """Every token that a `tokenizer_config.json` names, each once.

    Raises:
        ValueError: an entry is no token.
    """
    named = {key: token_name(tokenizer_config.get(key), key) for key in _named_keys(tokenizer_config)}
    extra = [token_name(value, _EXTRA[0]) for value in _extra(tokenizer_config)]
    special = {name for name in (*named.values(), *extra) if name}
    found: dict[str, AddedToken] = {}
    decoder = tokenizer_config.get("added_tokens_decoder") or {}
    for key, value in sorted(decoder.items(), key=lambda item: _whole(item[0])):
        token = _stated(_whole(key), value, special)
        if token.content in found:
            raise ValueError(f"tokenizer_config.json: added_tokens_decoder has {token.content!r} twice")
        found[token.content] = token
    for name in (*named.values(), *extra):
        if name:
            found.setdefault(name, AddedToken(name, None, True))
    return list(found.values())


def _named_keys(config: Mapping[str, Any]) -> list[str]:
    others = [
        key
        for key, value in config.items()
        if key.endswith("_token") and key not in _NAMED and isinstance(value, str | dict)
    ]
    return [*_NAMED, *others]


def _extra(config: Mapping[str, Any]) -> list[Any]:
    value: Any = next((config[key] for key in _EXTRA if config.get(key)), [])
    if isinstance(value, dict):  # by name, as image_token
        return list(value.values())
    if not isinstance(value, list):
        raise ValueError(f"tokenizer_config.json: {_EXTRA[0]} is no list: {str(value)[:80]!r}")
    return value


def _whole(key: str) -> int:
    if not key.isdecimal():
        raise ValueError(f"tokenizer_config.json: added_tokens_decoder has {key[:40]!r}, which is no id")
    return int(key)


def _stated(id_: int, value: Any, special: set[str]) -> AddedToken:
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, str) or not content:
        raise ValueError(f"tokenizer_config.json: added_tokens_decoder has no token for {id_}: {str(value)[:80]!r}")
    flags = tuple(flag for flag in _FLAGS if value.get(flag))
    return AddedToken(content, id_, bool(value.get("special")) or content in special, flags)
