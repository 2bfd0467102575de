"""From plain data to the typed `Config`: every unknown key, missing value and wrong type, all at once."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from typing import Any

from llama_exp.config import loggers
from llama_exp.config.check.conversion import WrongType, convert, describe_type, get_hints, is_schema, to_plain
from llama_exp.config.check.nearest import advise, ask_whether, suggest
from llama_exp.config.schema import NAMED_LOGGERS, SCHEMAS, TASKS, Config
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.redact import is_secret_name, printable, redact, redact_assignments

MISSING = "???"
EVALUATION = "evaluation"
TARGET = "_target_"
# Import prefixes that a `_target_` may always name. Keras' functions (get_file, load_model, ...) stay out.
OWN_PREFIX, KERAS_PREFIX = "llama_exp", "keras"


Origin = Callable[[str, str], str]


def find_section(target: str) -> str:
    """The config section that a target of ours belongs to."""
    module = target.split(".")[1]
    return "model" if module == "models" else module


def find_schemas(section: str) -> dict[str, type]:
    """Target -> dataclass of one section."""
    return {target: schema for target, schema in SCHEMAS.items() if find_section(target) == section}


def list_section_keys(section: str) -> set[str]:
    """Every key that some schema of a section knows."""
    declared = get_hints(Config)[section]
    schemas = [declared] if is_schema(declared) else find_schemas(section).values()
    return {key for schema in schemas for key in get_hints(schema)}


def list_sections() -> list[str]:
    """The config's sections, in build order."""
    return [name for name, hint in get_hints(Config).items() if hint is Any or is_schema(hint)]


def list_scalars() -> list[str]:
    """The config's single values: name, seed, ..."""
    return [name for name in get_hints(Config) if name not in list_sections()]


def lies_under(name: str, prefixes: typing.Iterable[str]) -> bool:
    """Whether a dotted name lies under one of the prefixes, component by component."""
    stripped = [prefix.rstrip(".") for prefix in prefixes]
    return any(prefix and (name == prefix or name.startswith(prefix + ".")) for prefix in stripped)


def is_allowed_target(target: str, trusted_modules: list[str]) -> bool:
    """Whether a `_target_` may be imported at all."""
    if not all(part.isidentifier() for part in target.split(".")):
        return False
    if lies_under(target, trusted_modules) or lies_under(target, [OWN_PREFIX]):
        return True
    return lies_under(target, [KERAS_PREFIX]) and target.rpartition(".")[2][:1].isupper()


def show(value: Any) -> str:
    """A value as one short line."""
    if isinstance(value, str):
        text = value or '""'
    elif value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    else:
        text = repr(value)
    line = redact_assignments(redact(printable(text).replace("\n", "\\n")))
    return line if len(line) <= 120 else line[:117] + "..."


def describe_unknown_key(path: str, found: str, action: str) -> Problem:
    """The problem of a key that nothing reads; the value of one that looks like a secret is not repeated."""
    if is_secret_name(path):
        found = "(not shown)"
        action += " Secrets belong into the environment (WANDB_API_KEY, HF_TOKEN): configurations are stored."
    return Problem("no such key", path, found, action)


class Typing:
    """One pass over plain data: collects `problems`, builds the `Config`.

    origin: (dotted path, value as text) -> the text to show as what was found, with where it was written.
    """

    def __init__(self, origin: Origin = lambda path, text: text):
        self.origin = origin
        self.problems: list[Problem] = []

    def config(self, data: dict[str, Any]) -> Config:
        """The typed config; fields with a problem keep the value `???`."""
        values = self._values("", Config, data)
        self.trusted_modules = values.get("trusted_modules", [])
        for name in list_sections():
            if name in values:
                values[name] = self._section(name, get_hints(Config)[name], data[name])
        return Config(**values)

    def section(self, name: str, data: Any, trusted_modules: list[str]) -> Any:
        """One typed section; `???` where it has a problem."""
        self.trusted_modules = trusted_modules
        return self._section(name, get_hints(Config)[name], data)

    def _values(self, path: str, schema: type, data: dict[str, Any]) -> dict[str, Any]:
        """The fields of `schema` that `data` has with the right type; sections are left as they are."""
        fields = get_hints(schema)
        for key in data:
            if key not in fields:
                self._unknown(f"{path}{key}", list(fields), data[key])
        values = {}
        for key, hint in fields.items():
            if key not in data or (isinstance(data[key], str) and data[key] == MISSING):
                action = f"set {path}{key}: {self._meaning(hint)}"
                self.problems.append(Problem("has no value", f"{path}{key}", "nothing", action))
            elif is_schema(hint):
                values[key] = data[key]
            else:
                try:
                    values[key] = convert(data[key], hint)
                except WrongType as error:
                    self._add(f"{path}{key}", "has the wrong type", data[key], f"give {error}")
        return values

    @staticmethod
    def _meaning(hint: Any) -> str:
        return "a part with a _target_" if hint is Any or is_schema(hint) else describe_type(hint)

    def _section(self, name: str, declared: Any, data: Any) -> Any:
        if not isinstance(data, dict):
            self._add(name, "is a part with keys, not a single value", data, f"set its keys: {name}.<key>=...")
            return MISSING
        if is_schema(declared):
            values = self._values(f"{name}.", declared, data)
            for key, value in values.items():
                if name == EVALUATION and key in ("sets", "tasks"):
                    known = find_schemas("dataset") if key == "sets" else TASKS
                    values[key] = self._objects(f"{name}.{key}", known, value)
                else:
                    values[key] = self._below(f"{name}.{key}", get_hints(declared)[key], value)
            return declared(**values)
        if name == loggers.SECTION:
            return self._loggers(data)
        return self._object(name, find_schemas(name), data)

    def _below(self, path: str, hint: Any, value: Any) -> Any:
        """A value of a section's key: typed by the schemas that its type names; elsewhere its targets are guarded."""
        arms = typing.get_args(hint)
        if typing.get_origin(hint) is dict and is_schema(arms[1]):
            return {name: self._keyed(f"{path}.{name}", arms[1], node) for name, node in value.items()}
        schemas = [arm for arm in (hint, *arms) if is_schema(arm)]
        if schemas and (value is not None or type(None) not in arms):
            return self._keyed(path, schemas[0], value)
        self._nested_targets(path, value)
        return value

    def _keyed(self, path: str, schema: type, data: Any) -> Any:
        """A schema below a name of the user's own: its keys may be left out where it has a default for them."""
        if not isinstance(data, dict):
            self._add(path, "is a part with keys, not a single value", data, f"set its keys: {path}.<key>=...")
            return MISSING
        hints = get_hints(schema)
        defaults = {key: value for key, value in vars(schema()).items() if key not in data and value != MISSING}
        stated = self._values(f"{path}.", schema, {**{key: to_plain(value) for key, value in defaults.items()}, **data})
        return schema(**{key: self._below(f"{path}.{key}", hints[key], value) for key, value in stated.items()})

    def _loggers(self, data: dict[str, Any]) -> Any:
        """The section that may hold several objects: typed values at the top, typed loggers below their names."""
        own, named = loggers.split_loggers(data)
        if own and TARGET not in own:
            for key, value in own.items():
                action = "choose the logger whose key it is too: logger=[wandb,...]; or take it out"
                self._add(f"{loggers.SECTION}.{key}", "belongs to none of the loggers", value, action)
            return MISSING
        top = self._object(loggers.SECTION, find_schemas(loggers.SECTION), own) if own else {}
        below = {name: self._object(f"{loggers.SECTION}.{name}", NAMED_LOGGERS, node) for name, node in named.items()}
        if MISSING in (top, *below.values()):
            return MISSING
        return (vars(top) if is_schema(type(top)) else top) | below

    def _objects(self, path: str, known: dict[str, type], nodes: dict[str, Any]) -> dict[str, Any]:
        """Objects below names of the user's own."""
        return {name: self._entry(f"{path}.{name}", known, node) for name, node in nodes.items()}

    def _entry(self, path: str, known: dict[str, type], node: Any) -> Any:
        if isinstance(node, dict):
            return self._object(path, known, node)
        self._add(path, "is a part with keys, not a single value", node, f"set its keys: {path}.<key>=...")
        return MISSING

    def _object(self, name: str, known: dict[str, type], data: dict[str, Any]) -> Any:
        """The object that a `_target_` names: with a schema of ours typed, else as it is."""
        target = data.get(TARGET, MISSING)
        if isinstance(target, str) and target in known:
            values = self._values(f"{name}.", known[target], data)
            return known[target](**values)
        if target == MISSING or not isinstance(target, str):
            self._add(f"{name}.{TARGET}", "names no class", target, f"one of {', '.join(known)}, or one of yours")
        elif lies_under(target, [OWN_PREFIX]):
            action = suggest(target, known, f"targets of {name}")
            self._add(f"{name}.{TARGET}", f"builds no {name} of this package", target, action)
        else:
            self._nested_targets(name, data)
            return dict(data)
        return MISSING

    def _nested_targets(self, path: str, node: Any) -> None:
        """Refuses every `_target_` at any depth that may not be imported."""
        if isinstance(node, list):
            for item in node:
                self._nested_targets(path, item)
        elif isinstance(node, dict):
            target = node.get(TARGET)
            if TARGET in node and not (isinstance(target, str) and is_allowed_target(target, self.trusted_modules)):
                action = "use a class under llama_exp. or keras., or add its module prefix to trusted_modules"
                self._add(f"{path}.{TARGET}", "may not be imported from a configuration", target, action)
            for key, value in node.items():
                self._nested_targets(f"{path}.{key}", value)

    def _unknown(self, path: str, siblings: list[str], value: Any) -> None:
        match = advise(path, list_keys())
        action = ask_whether(match, path) if match else f"keys here: {', '.join(siblings)}"
        self.problems.append(describe_unknown_key(path, self.origin(path, show(value)), action))

    def _add(self, path: str, what: str, found: Any, action: str) -> None:
        self.problems.append(Problem(what, path, self.origin(path, show(found)), action))


@functools.cache
def list_mappings() -> tuple[str, ...]:
    """Dotted paths of the keys whose value is a mapping of the user's own names."""
    declared = {section: schema for section, schema in get_hints(Config).items() if is_schema(schema)}
    return tuple(
        f"{section}.{key}"
        for section, schema in declared.items()
        for key, hint in get_hints(schema).items()
        if typing.get_origin(hint) is dict
    )


@functools.cache
def list_keys() -> tuple[str, ...]:
    """Dotted paths of every key of every schema."""
    return (
        *list_scalars(),
        *(f"{section}.{key}" for section in list_sections() for key in sorted(list_section_keys(section))),
        *list_named_logger_keys(),
    )


@functools.cache
def list_named_logger_keys() -> dict[str, Any]:
    """Dotted path -> type of the keys of each logger that stands below its name, but for its target."""
    return {
        f"{loggers.SECTION}.{loggers.name_of(target)}.{key}": hint
        for target, schema in NAMED_LOGGERS.items()
        for key, hint in get_hints(schema).items()
        if key != TARGET
    }


def build_config(data: dict[str, Any]) -> Config:
    """The `Config` of resolved plain data. Raises ConfigError with every problem."""
    typing_pass = Typing()
    config = typing_pass.config(data)
    if typing_pass.problems:
        raise ConfigError(*typing_pass.problems)
    return config
