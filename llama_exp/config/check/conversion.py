"""Plain data as the types of the schema, value by value."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import types
import typing
from typing import Any


class WrongType(ValueError):
    """A value does not have its field's type; says which type is wanted."""


@functools.cache
def get_hints(schema: type) -> dict[str, Any]:
    """Field name -> type of a schema dataclass, inherited fields included."""
    return typing.get_type_hints(schema)


def is_schema(hint: Any) -> typing.TypeGuard[type]:
    """Whether a field's type is a schema dataclass: the field is a section with keys."""
    return dataclasses.is_dataclass(hint)


def to_plain(value: Any) -> Any:
    """A default of a schema as YAML would say it."""
    if isinstance(value, enum.Enum):
        return value.name
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def describe_type(hint: Any) -> str:
    """A type in words."""
    if isinstance(hint, types.UnionType):
        (inner,) = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        return f"{describe_type(inner)}, or null"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return f"one of {', '.join(hint.__members__)}"
    if is_schema(hint):
        return f"a mapping with the keys {', '.join(get_hints(hint))}"
    if typing.get_origin(hint) is list:
        return "a list such as [a,b]"
    if typing.get_origin(hint) is dict:
        element = typing.get_args(hint)[1]
        return "a mapping such as {a:1}" + ("" if element is Any else f", each value {describe_type(element)}")
    return {int: "an integer", float: "a number", bool: "true or false", str: "text"}[hint]


def _number(value: Any, kind: type) -> Any:
    accepted = (int,) if kind is int else (int, float)
    if isinstance(value, accepted) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return kind(value)
    if isinstance(value, str):  # environment variables are always text
        with contextlib.suppress(ValueError):
            return kind(value)
    raise WrongType(describe_type(kind))


def convert(value: Any, hint: Any) -> Any:
    """`value` as the type `hint`; raises WrongType. Lossless: no truncation, no truth values from numbers."""
    if hint is Any:
        return value
    if is_schema(hint):  # whoever asks types its keys, and says where each stands
        return value
    if isinstance(hint, types.UnionType):
        (inner,) = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        try:
            return None if value is None else convert(value, inner)
        except WrongType:
            raise WrongType(describe_type(hint)) from None
    if hint in (int, float):
        return _number(value, hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        # YAML and Hydra read `true` as a truth value before anybody sees the field.
        name = str(value).lower() if isinstance(value, bool) else value
        if isinstance(name, str) and name in hint.__members__:
            return hint[name]
    elif typing.get_origin(hint) is list:
        (element,) = typing.get_args(hint)
        if isinstance(value, str) and element is str:  # `dataset.files=book.txt`: one text is a list of one
            return [value]
        if isinstance(value, list):
            return [convert(item, element) for item in value]
    elif typing.get_origin(hint) is dict:
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            with contextlib.suppress(WrongType):
                return {key: convert(item, typing.get_args(hint)[1]) for key, item in value.items()}
    elif hint is str:
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return str(value)
    elif isinstance(value, hint):
        return value
    raise WrongType(describe_type(hint))
