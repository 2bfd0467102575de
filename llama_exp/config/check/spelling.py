"""Text stays text: which keys hold text, and the overrides of such keys as Hydra's grammar takes them for it.

`name=2025_11_28` is a number to Hydra, and `preset.source=my{model` an error. Where the key holds text, neither can be
meant; such a value is quoted before Hydra sees it. Values that Hydra reads as text already stay as they were typed.
"""

from __future__ import annotations

import functools
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from llama_exp.config.check.conversion import get_hints, is_schema
from llama_exp.config.check.typed import find_schemas, list_named_logger_keys, list_sections
from llama_exp.config.quoting import quote
from llama_exp.config.schema import TASKS, Config

# Keys of Hydra's own that hold a folder.
HYDRA_TEXTS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
GROUPS = ("experiment", "sweep")
_OPENING, _CLOSING = "[{(", "]})"
# Functions of Hydra's grammar whose arguments are values of the key; those of all others are numbers or patterns.
_OF_VALUES = re.compile(r"\s*(choice|shuffle|sort)\(")
_FUNCTION = re.compile(r"\s*(range|interval|glob|tag|int|float|str|bool|json_str|extend_list)\(")
_TASK = "evaluation.tasks.*"
_NAMED = re.compile(r"evaluation\.(sets|tasks)\.[^.]+\.(\w+)")
_NULL = re.compile(r"null", re.IGNORECASE)


class Unbalanced(ValueError):
    """Brackets or quotes of a value do not close."""


@functools.cache
def list_texts() -> dict[str, bool]:
    """Dotted path of each key that holds text -> whether it holds a list of them."""
    found = {path: False for path in HYDRA_TEXTS}
    for name, hint in get_hints(Config).items():
        found |= _text_of(name, hint)
        if name not in list_sections():
            continue
        schemas = [hint] if is_schema(hint) else find_schemas(name).values()
        for schema in schemas:
            for key, inner in get_hints(schema).items():
                found |= _text_of(f"{name}.{key}", inner)
    for path, hint in list_named_logger_keys().items():
        found |= _text_of(path, hint)
    for schema in TASKS.values():
        for key, hint in get_hints(schema).items():
            found |= _text_of(f"{_TASK}.{key}", hint)
    return found


def _without_name(path: str) -> str:
    """The path of a key below a name of the user's own, as `list_texts` has it: of a set, that of a data set."""
    match = _NAMED.fullmatch(path)
    if match is None:
        return path
    return f"{'dataset' if match[1] == 'sets' else _TASK}.{match[2]}"


def _text_of(path: str, hint: Any) -> dict[str, bool]:
    arms = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if str in arms:
        return {path: False}
    return {path: True} if list[str] in arms else {}


def is_text(path: str) -> bool:
    """Whether the value of a key is one text; choices of parts are."""
    path = _without_name(path)
    return list_texts().get(path) is False or path in (*list_sections(), *GROUPS)


def holds_texts(path: str) -> bool:
    """Whether a key, or one below it, holds text."""
    path = _without_name(path)
    return is_text(path) or path in list_texts() or any(name.startswith(f"{path}.") for name in list_texts())


def spell_texts(line: str, needs_quotes: Callable[[str], bool]) -> str:
    """An override with quotes around the texts in its value that need them.

    Args:
        line: as typed.
        needs_quotes: whether Hydra takes an unquoted word for something else than text, or for nothing at all.
    """
    left, _, value = line.partition("=")
    key = _without_name(left.lstrip("+~"))
    try:
        return f"{left}={_spell(value, key, needs_quotes)}"
    except Unbalanced:
        first = value.lstrip()[:1]
        if first in "'\"" or not (is_text(key) or (key in list_texts() and first != "[")):
            return line
        return f"{left}={quote(value.strip())}"


def _spell(value: str, path: str, needs_quotes: Callable[[str], bool]) -> str:
    """A value, or several in a sweep, with quotes."""
    if match := _OF_VALUES.match(value):
        if not value.rstrip().endswith(")"):
            raise Unbalanced(value)
        inner = value.rstrip()[match.end() : -1]
        return f"{match[0]}{_spell(inner, path, needs_quotes)})"
    if _FUNCTION.match(value):
        return value
    return ",".join(_spell_element(element, path, needs_quotes) for element in _split(value))


def _spell_element(element: str, path: str, needs_quotes: Callable[[str], bool]) -> str:
    stripped = element.strip()
    is_mapping = stripped.startswith("{") and stripped.endswith("}")
    if path in (*list_sections(), *GROUPS) and stripped[:1] in _OPENING:
        return _spell_mapping(stripped, path, needs_quotes) if is_mapping else element
    if is_text(path):
        return _spell_word(element, needs_quotes)
    if stripped.startswith("[") and stripped.endswith("]") and list_texts().get(path):
        items = (_spell_item(item, needs_quotes) for item in _split(stripped[1:-1]))
        return f"[{','.join(items)}]"
    if path in list_texts() and not stripped.startswith(("[", "{")):  # a single text in the place of a list of them
        return _spell_word(element, needs_quotes)
    return _spell_mapping(stripped, path, needs_quotes) if is_mapping else element


def _spell_item(item: str, needs_quotes: Callable[[str], bool]) -> str:
    """An item of a list of texts; a list or mapping in its place is a mistake, not a text."""
    stripped = item.strip()
    if stripped[:1] in _OPENING and stripped[-1:] in _CLOSING:
        return item
    return item.replace(stripped, quote(stripped)) if _NULL.fullmatch(stripped) else _spell_word(item, needs_quotes)


def _spell_mapping(value: str, path: str, needs_quotes: Callable[[str], bool]) -> str:
    entries = []
    for entry in _split(value[1:-1]):
        key, colon, inner = entry.partition(":")
        entries.append(f"{key}{colon}{_spell_element(inner, f'{path}.{key.strip()}', needs_quotes)}")
    return "{" + ",".join(entries) + "}"


def _spell_word(element: str, needs_quotes: Callable[[str], bool]) -> str:
    word = element.strip()
    if not word or word[0] in "'\"" or "${" in word or _NULL.fullmatch(word) or not needs_quotes(word):
        return element
    return element.replace(word, quote(word))


def _split(value: str) -> Iterator[str]:
    """The elements between commas that stand in no brackets and no quotes."""
    depth, start, inside = 0, 0, ""
    for index, letter in enumerate(value):
        if inside:
            if letter == inside and value[index - 1] != "\\":
                inside = ""
        elif letter in "'\"":
            inside = letter
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        elif letter == "," and depth == 0:
            yield value[start:index]
            start = index + 1
        if depth < 0:
            raise Unbalanced(value)
    if depth or inside:
        raise Unbalanced(value)
    yield value[start:]
