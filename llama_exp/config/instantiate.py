"""Builds the object that a section's `_target_` names; the one place where a configuration becomes code.

    check_targets   the arguments of every target, before anything is built
    instantiate     one object

Guard: a target must lie under `llama_exp.`, be a class under `keras.`, or lie under a module prefix of
`trusted_modules`. That is decided from its name, before any import; and again after it, because a module also holds
what it has imported from elsewhere. Only a user's own configuration may be given to this module: configs found
inside presets, checkpoints or run folders are data.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from llama_exp.config.check.contracts import HYDRA_KEYS, KERAS_CALLBACK, keras_problem
from llama_exp.config.check.nearest import find_nearest_name
from llama_exp.config.check.typed import KERAS_PREFIX, OWN_PREFIX, TARGET, is_allowed_target, lies_under, show
from llama_exp.config.identity import to_dict
from llama_exp.errors import ConfigError, Problem
from llama_exp.limits import ImpossibleValue
from llama_exp.limits.trainer import observer_problems

CALLBACKS = "trainer.callbacks."
# Keras classes whose arguments are code or files to run.
CODE_CLASSES = {"Lambda", "TFSMLayer", "TorchModuleWrapper"}


def instantiate(section: Any, trusted_modules: list[str], where: str = TARGET, **kwargs: Any) -> Any:
    """The object that a section describes.

    Args:
        section: a section dataclass or a dict with a `_target_`; nested ones are built first. Enum members are given
            to the target as their value.
        trusted_modules: import prefixes that the user trusts.
        where: the section's config key, for messages.
        **kwargs: further arguments that are no data, such as a dtype policy.

    Raises:
        ConfigError: a target that may not or cannot be imported, an argument that it does not have, or a ValueError
            of the target, which is what it raises for an impossible argument.
    """
    node = to_dict(section)
    _raise_if_any(list(_problems(node, trusted_modules, where, set(kwargs))))
    from hydra.errors import InstantiationException

    try:
        return _build(node, kwargs)
    except InstantiationException as error:
        cause = _root_cause(error)
        if not isinstance(cause, (InstantiationException, ValueError)):
            raise cause from error
        raise ConfigError(_refusal(node, where, cause)) from error
    except ValueError as error:
        raise ConfigError(_refusal(node, where, error)) from error


def check_targets(sections: Mapping[str, Any], trusted_modules: list[str], arguments: Mapping[str, set[str]]) -> None:
    """Imports every target and compares its arguments with its section's keys.

    Args:
        sections: config key -> section with a `_target_`; other sections are passed over.
        trusted_modules: import prefixes that the user trusts.
        arguments: config key -> names of the arguments that the run itself will add.

    Raises:
        ConfigError: with every problem of all sections.
    """
    problems: list[Problem] = []
    for where, section in sections.items():
        node = to_dict(section)
        if isinstance(node, dict) and TARGET in node:
            problems += _problems(node, trusted_modules, where, arguments.get(where, set()))
    _raise_if_any(problems)


def _raise_if_any(problems: list[Problem]) -> None:
    if problems:
        raise ConfigError(*problems)


def _problems(node: Any, trusted_modules: list[str], where: str, added: set[str]) -> Iterator[Problem]:
    """Problems of a target and of the targets nested in it."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _problems(item, trusted_modules, f"{where}[{index}]", set())
    if not isinstance(node, dict):
        return
    if TARGET in node:
        yield from _target_problems(node, trusted_modules, where, added)
    for key, value in node.items():
        yield from _problems(value, trusted_modules, f"{where}.{key}", set())


def _target_problems(node: dict, trusted_modules: list[str], where: str, added: set[str]) -> Iterator[Problem]:
    target = node[TARGET]
    where_target = f"{where}.{TARGET}" if where != TARGET else where
    action = "use a class under llama_exp. or keras., or add its module prefix to trusted_modules"
    if not isinstance(target, str) or not is_allowed_target(target, trusted_modules):
        yield Problem("may not be imported from a configuration", where_target, show(target), action)
        return
    try:
        located = _locate(target)
    except (ImportError, AttributeError) as error:
        fix = "correct the name; a module of your own must be installed or on PYTHONPATH"
        yield Problem(f"cannot be imported: {error}", where_target, target, fix)
        return
    home = getattr(located, "__module__", None) or ""
    is_trusted = lies_under(target, trusted_modules)
    at_home = lies_under(home, [OWN_PREFIX, KERAS_PREFIX, *trusted_modules])
    is_code = lies_under(target, [KERAS_PREFIX]) and (not inspect.isclass(located) or located.__name__ in CODE_CLASSES)
    if not callable(located) or (not is_trusted and (not at_home or is_code)):
        yield Problem("may not be called from a configuration", where_target, target, action)
        return
    yield from _argument_problems(located, node, where, added)
    if where.startswith(CALLBACKS) and inspect.isclass(located):
        bases = [f"{base.__module__}.{base.__name__}" for base in located.__mro__]
        if KERAS_CALLBACK in bases:
            yield keras_problem(where, target)
        else:
            yield from observer_problems(dir(located), where_target, target)


def _locate(target: str) -> Any:
    """The object of a dotted name: the longest importable module, then attributes."""
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            located = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and lies_under(name, [error.name]):
                continue
            raise
        for attribute in parts[length:]:
            located = getattr(located, attribute)
        return located
    raise ModuleNotFoundError(f"No module named {parts[0]!r}")


def _argument_problems(located: Any, node: dict, where: str, added: set[str]) -> Iterator[Problem]:
    names, is_open, required = _parameters(located)
    for key in node:
        if key not in HYDRA_KEYS and key not in names and not is_open:
            match = find_nearest_name(key, names)
            action = f"did you mean {match}? " if match else ""
            action += f"arguments: {', '.join(sorted(names - added)) or 'none'}"
            yield Problem(f"{node[TARGET]} has no such argument", f"{where}.{key}", show(node[key]), action)
    missing = sorted(required - set(node) - added)
    if missing and "_args_" not in node and not node.get("_partial_"):
        action = f"set {', '.join(f'{where}.{name}' for name in missing)}"
        yield Problem(f"{node[TARGET]} needs more arguments", where, f"without {', '.join(missing)}", action)


def _parameters(located: Any) -> tuple[set[str], bool, set[str]]:
    """Names of a callable's parameters, whether it takes any other, and those without a default.

    A class whose constructor passes `**kwargs` on takes its base classes' parameters too.
    """
    functions = [located]
    if inspect.isclass(located):
        functions = [vars(base)["__init__"] for base in located.__mro__[:-1] if "__init__" in vars(base)]
    names: set[str] = set()
    required: set[str] = set()
    for index, function in enumerate(functions):
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (ValueError, TypeError):
            return names, True, set()
        parameters = parameters[1:] if inspect.isclass(located) else parameters
        is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        names |= {parameter.name for parameter in named}
        if index == 0:
            required = {parameter.name for parameter in named if parameter.default is parameter.empty}
        if not is_open:
            return names, False, required
    return names, bool(functions), required


def _build(node: Any, added: Mapping[str, Any]) -> Any:
    """The data of `node` with every target in it built; Hydra imports and calls, our data stay out of its sight.

    Why: Hydra would look up `${...}` in texts that are resolved already.
    """
    if isinstance(node, list):
        return [_build(item, {}) for item in node]
    if not isinstance(node, dict):
        return node
    values = {key: _build(value, {}) for key, value in node.items() if key not in HYDRA_KEYS}
    if TARGET not in node:
        return values
    from hydra.utils import instantiate as hydra_instantiate

    factory = hydra_instantiate({TARGET: node[TARGET], "_partial_": True})
    made = functools.partial(factory, *_build(node.get("_args_", []), {}), **{**values, **added})
    return made if node.get("_partial_") else made()


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _refusal(node: dict, where: str, error: BaseException) -> Problem:
    """A target's own refusal, with the nearest name for keys that no signature along its classes knows."""
    names, _, _ = _parameters(_locate(node[TARGET]))
    unknown = {key: find_nearest_name(key, names) for key in node if key not in HYDRA_KEYS and key not in names}
    hints = [f"{key}: did you mean {match}?" for key, match in unknown.items() if match]
    values = ", ".join(f"{key}={show(value)}" for key, value in node.items() if key not in HYDRA_KEYS)
    if isinstance(error, ImpossibleValue):
        return error.problem
    reason = " ".join(str(error).split())
    return Problem(f"{node[TARGET]} refuses its arguments: {reason}", where, values, " ".join(hints) or "correct them")
