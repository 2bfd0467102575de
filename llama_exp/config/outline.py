"""What the source of a class or function says of it, read without an import.

An import would run its code and take the frameworks with it, seconds of them; the check of a command line has neither.
Only what stands plainly in the source is found: definitions, names that are imported from elsewhere, base classes. What
is made in another way counts as not known, and is looked at again when it is imported.
"""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DEEPEST = 12  # names that lead to names
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Outline:
    """A class, or a function that makes an object.

    names: dotted names of the class and of its base classes, nearest first. methods: what they define, without what
    stays abstract. parameters: of the constructor, those of base classes included where it passes `**options` on.
    required: those without a default. is_open: it takes any other name. is_class: a function says nothing of what it
    returns. is_whole: every base class was found.
    """

    names: tuple[str, ...]
    methods: frozenset[str]
    parameters: frozenset[str]
    required: frozenset[str]
    is_open: bool
    is_class: bool
    is_whole: bool


def read_outline(target: str) -> Outline | None:
    """The outline of a dotted name; None: its source does not say."""
    found = _find(target, _DEEPEST)
    if found is None:
        return None
    module, node = found
    if not isinstance(node, ast.ClassDef):
        parameters, required, is_open = _read_signature(node, is_method=False)
        name = f"{module}.{node.name}"
        return Outline((name,), frozenset(), parameters, required, is_open, is_class=False, is_whole=True)
    classes = list(_lineage(module, node, _DEEPEST))
    known = [entry for entry in classes if entry is not None]
    parameters, required, is_open = _read_constructor([definition for _, definition in known])
    return Outline(
        names=tuple(f"{home}.{definition.name}" for home, definition in known),
        methods=frozenset(_read_methods([definition for _, definition in known])),
        parameters=parameters,
        required=required,
        is_open=is_open,
        is_class=True,
        is_whole=None not in classes,
    )


def has_module(target: str) -> bool:
    """Whether Python finds the package or module that a dotted name begins with."""
    try:
        return importlib.util.find_spec(target.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _find(target: str, depth: int) -> tuple[str, Definition] | None:
    """Module and definition of a dotted name, through the names that it was imported under."""
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        tree = _read_module(module)
        if tree is not None:
            rest = parts[length:]
            return _look_up(module, tree, rest, depth) if depth else None
    return None


def _look_up(module: str, tree: ast.Module, rest: list[str], depth: int) -> tuple[str, Definition] | None:
    """The definition of a name in a module; `rest` has its parts."""
    for statement in _statements(tree.body):
        if isinstance(statement, Definition) and statement.name == rest[0]:
            return (module, statement) if len(rest) == 1 else None
        if isinstance(statement, ast.ImportFrom | ast.Import):
            for alias in statement.names:
                if (alias.asname or alias.name.partition(".")[0]) == rest[0]:
                    source = _imported(module, statement, alias)
                    return _find(".".join([source, *rest[1:]]), depth - 1)
    return None


def _imported(module: str, statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    """The dotted name that an import gives another name."""
    if isinstance(statement, ast.Import):
        return alias.name if alias.asname else alias.name.partition(".")[0]
    if not statement.level:
        return f"{statement.module}.{alias.name}"
    spec = _find_spec(module)
    is_package = spec is not None and spec.submodule_search_locations is not None
    above = module.split(".")[: None if is_package and statement.level == 1 else is_package - statement.level]
    return ".".join([*above, *([statement.module] if statement.module else []), alias.name])


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, those under a condition included."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            yield from _statements(statement.body)


def _lineage(module: str, node: ast.ClassDef, depth: int) -> Iterator[tuple[str, ast.ClassDef] | None]:
    """A class and its base classes, depth first; None for one that is not found."""
    yield module, node
    for base in node.bases:
        name = ast.unparse(base)
        if name in ("object", "abc.ABC", "ABC", "Protocol") or name.startswith(("Generic[", "Protocol[")):
            continue
        found = _find(f"{module}.{name}", depth - 1) if depth else None
        if found is None or not isinstance(found[1], ast.ClassDef):
            yield None
        else:
            yield from _lineage(found[0], found[1], depth - 1)


def _read_methods(classes: list[ast.ClassDef]) -> Iterator[str]:
    seen: set[str] = set()
    for node in classes:
        for statement in _statements(node.body):
            names = [statement.name] if isinstance(statement, Definition) else _assigned(statement)
            for name in names:
                is_abstract = isinstance(statement, Definition) and any(
                    ast.unparse(decorator).endswith("abstractmethod") for decorator in statement.decorator_list
                )
                if name not in seen and not is_abstract:
                    yield name
                seen.add(name)


def _assigned(statement: ast.stmt) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _read_constructor(classes: list[ast.ClassDef]) -> tuple[frozenset[str], frozenset[str], bool]:
    """Parameters, those without a default, and whether any other name is taken; as `instantiate` finds them later."""
    parameters: frozenset[str] = frozenset()
    required: frozenset[str] | None = None
    for node in classes:
        found = [s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"]
        if not found:
            if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
                return frozenset(), frozenset(), True
            continue
        names, needed, is_open = _read_signature(found[0], is_method=True)
        parameters, required = parameters | names, needed if required is None else required
        if not is_open:
            return parameters, required, False
    return parameters, required or frozenset(), required is not None


def _read_signature(
    node: ast.FunctionDef | ast.AsyncFunctionDef, is_method: bool
) -> tuple[frozenset[str], frozenset[str], bool]:
    arguments = node.args
    positional = [argument.arg for argument in [*arguments.posonlyargs, *arguments.args]]
    without = positional[: len(positional) - len(arguments.defaults)]
    keyword = list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    required = [*without[is_method:], *(argument.arg for argument, default in keyword if default is None)]
    names = [*positional[is_method:], *(argument.arg for argument, _ in keyword)]
    return frozenset(names), frozenset(required), arguments.kwarg is not None


@functools.cache
def _read_module(name: str) -> ast.Module | None:
    spec = _find_spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        return ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Where a module lies, without importing the packages above it."""
    spec, places = None, None
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        try:
            spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:length]), places)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    return spec
