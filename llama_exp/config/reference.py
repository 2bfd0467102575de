"""Every key of the configuration with its type, meaning, choices and default: for the docs and for editors.

    schema.py (types, meanings)  +  conf/ (choices, values, notes)  ->  parts()  ->  reference page, JSON schema

Imports no framework.
"""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.config import loggers
from llama_exp.config.check.command_line import CONF
from llama_exp.config.check.conversion import get_hints, is_schema
from llama_exp.config.check.typed import TARGET, find_schemas, list_sections
from llama_exp.config.schema import NAMED_LOGGERS, Config

_NOTE = re.compile(r"^\s*(?:- )?(\w+)\s*[:=][^#]*#\s*(.+?)\s*$")


@dataclass(frozen=True)
class Key:
    """One key: its type hint, what it means, and what the files of conf/ note beside their value."""

    name: str
    hint: Any
    meaning: str
    note: str


@dataclass(frozen=True)
class Part:
    """One section: `docstring` of its dataclasses, choices (file -> its first comment), keys by name."""

    name: str
    docstring: str
    choices: dict[str, str]
    keys: dict[str, Key]
    targets: list[str]


def parts() -> list[Part]:
    """All sections, in build order."""
    return [_part(name) for name in list_sections()]


def single_values() -> dict[str, Key]:
    """The keys that belong to no section: name, seed, ..."""
    return {
        name: key
        for name, key in _keys([Config], _notes([CONF / "config.yaml"])).items()
        if name not in list_sections()
    }


def choices(group: str) -> dict[str, str]:
    """Name -> first comment of every file in conf/<group>/."""
    return {path.stem: _first_comment(path) for path in sorted((CONF / group).glob("*.yaml"))}


def values_of(hint: Any) -> dict[str, str]:
    """Member -> meaning of a closed choice; empty for other types."""
    kind = next((arm for arm in _arms(hint) if isinstance(arm, type) and issubclass(arm, enum.Enum)), None)
    if kind is None:
        return {}
    meanings = _meanings(kind)
    return {name: meanings.get(name, "") for name in kind.__members__}


def meaning_of(key: Key) -> str:
    """What a key means, and each member of a closed choice."""
    members = [f"{name}: {text}" for name, text in values_of(key.hint).items() if text]
    note = "" if members and not key.meaning else key.meaning or key.note  # a note would only repeat the members
    return "; ".join([*filter(None, [note]), *members])


def json_schema(part: str | None = None) -> dict[str, Any]:
    """A JSON schema (draft 7) of a YAML file: a whole configuration or experiment, or one part's.

    Args:
        part: a section; None: the whole configuration, of which an experiment states some keys.
    """
    body = _whole_schema() if part is None else _part_schema(next(p for p in parts() if p.name == part))
    properties = {"defaults": {"description": "files that this one builds on: Hydra's defaults list", "type": "array"}}
    title = "llama_exp: a configuration or experiment" if part is None else f"llama_exp: conf/{part}"
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        **body,
        "properties": properties | body["properties"],
    }


def _part(name: str) -> Part:
    declared = get_hints(Config)[name]
    by_target = {} if is_schema(declared) else find_schemas(name)
    schemas = list(dict.fromkeys(by_target.values())) or [declared]
    notes = _notes(sorted((CONF / name).glob("*.yaml")))
    keys = _keys(schemas, notes)
    if name == loggers.SECTION:
        keys |= _keys_of_named_loggers(notes)
    return Part(name, inspect.cleandoc(schemas[0].__doc__ or ""), choices(name), keys, list(by_target))


def _keys(schemas: list[type], notes: dict[str, str]) -> dict[str, Key]:
    found: dict[str, Key] = {}
    for schema in schemas:
        meanings = {name: text for base in reversed(schema.__mro__) for name, text in _meanings(base).items()}
        for name, hint in get_hints(schema).items():
            known = found.get(name)
            if name != TARGET and (known is None or hint == known.hint | None):  # the wider type of two choices
                found[name] = Key(name, hint, meanings.get(name, ""), notes.get(name, ""))
    return found


def _keys_of_named_loggers(notes: dict[str, str]) -> dict[str, Key]:
    """The keys of the loggers that stand below a name, under `<name>.<key>`."""
    return {
        f"{loggers.name_of(target)}.{name}": key
        for target, schema in NAMED_LOGGERS.items()
        for name, key in _keys([schema], notes).items()
    }


def _meanings(schema: type) -> dict[str, str]:
    """Field or member -> the comment behind it in the source; without one, the comment lines above it."""
    if schema is object or schema.__module__ in ("enum", "builtins"):
        return {}
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(schema).splitlines():
        match = re.match(r"\s+(\w+)\s*(?::[^=]+)?=[^#]*(?:#\s*(.+))?$", line)
        if match:
            found[match[1]] = match[2] or " ".join(above)
        above = [*above, line.strip("# ")] if line.strip().startswith("#") else []
    return found


def _notes(files: list[Path]) -> dict[str, str]:
    """Key -> the first comment that a file has behind it."""
    lines = (line for file in files for line in file.read_text(encoding="utf-8").splitlines())
    found: dict[str, str] = {}
    for match in filter(None, map(_NOTE.match, lines)):
        found.setdefault(match[1], match[2])
    return found


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = (line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line)
    return next(comments, "")


def _arms(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _whole_schema() -> dict[str, Any]:
    properties = {name: _key_schema(key) for name, key in single_values().items()}
    properties |= {part.name: _part_schema(part) for part in parts()}
    hydra = {"hydra": {"description": "Hydra's own section: folders, sweeper, launcher", "type": "object"}}
    return {"type": "object", "additionalProperties": False, "properties": properties | hydra}


def _part_schema(part: Part) -> dict[str, Any]:
    """A section whose `_target_` is ours, or left out, has the keys that we know; another class has its own."""
    keys = {name: key for name, key in part.keys.items() if "." not in name}
    schema: dict[str, Any] = {
        "type": "object",
        "description": part.docstring,
        "properties": {name: _key_schema(key) for name, key in keys.items()},
    }
    if not part.targets:
        return schema | {"additionalProperties": False}
    target = {"description": "the class or function that Hydra builds", "type": "string", "examples": part.targets}
    names: dict[str, Any] = {"propertyNames": {"enum": ["defaults", TARGET, *keys]}}
    if part.name == loggers.SECTION:
        names = _named_loggers(part, ["defaults", TARGET, *keys])
    ours = {"properties": {TARGET: {"enum": part.targets}}}
    return schema | {"properties": {TARGET: target} | schema["properties"], "if": ours, "then": names}


def _named_loggers(part: Part, own: list[str]) -> dict[str, Any]:
    """Any further name holds a logger; those of ours have the keys that we know."""
    known: dict[str, Any] = {loggers.name_of(target): {} for target in NAMED_LOGGERS}
    for path, key in part.keys.items():
        name, _, leaf = path.rpartition(".")
        if name:
            known[name][leaf] = _key_schema(key)
    described = {
        name: {"type": "object", "properties": {TARGET: {"type": "string"}} | keys, "additionalProperties": False}
        for name, keys in known.items()
    }
    other = {"type": "object", "required": [TARGET]}
    return {"properties": dict.fromkeys(own, True) | described, "additionalProperties": other}


def _key_schema(key: Key) -> dict[str, Any]:
    """An interpolation or `???` may stand wherever a value may."""
    alternatives = [*map(_type_schema, _arms(key.hint)), {"type": "string", "pattern": r"^(\$\{.*\}|\?\?\?)$"}]
    return {"description": meaning_of(key), "anyOf": alternatives}


def _type_schema(hint: Any) -> dict[str, Any]:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        # `true` and `false` are members of some choices, and truth values where YAML is read.
        truths = {"true": True, "false": False}
        return {"enum": [value for name in hint.__members__ for value in (name, truths.get(name)) if value is not None]}
    if typing.get_origin(hint) is list:
        return {"type": "array", "items": {"anyOf": [_type_schema(arm) for arm in typing.get_args(hint)]}}
    if typing.get_origin(hint) is dict:
        return {"type": "object", "additionalProperties": _type_schema(typing.get_args(hint)[1])}
    names = {int: "integer", float: "number", bool: "boolean", str: "string", types.NoneType: "null"}
    return {"type": names[hint]} if hint in names else {}
