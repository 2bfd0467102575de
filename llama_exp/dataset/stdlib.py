"""What the standard library says about itself: docstrings and the language reference's topics; and its code.

Source files are parsed, never imported, except `pydoc_data.topics`, which holds nothing but text, and `builtins`, which
is always there. The order is that of the module names and, within a module, of the source.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import inspect
import os
import platform
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SKIPPED_MODULES = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "pydoc_data", "idle_test"}
_INSTANCE_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class Documented:
    """Something that carries a docstring.

    kind: module, class, function or method. name: its qualified name (`textwrap.wrap`, `str.split`).
    signature: with parentheses, "" for modules, classes and where Python does not know it. parameters: names and
    defaults as (name, default or ""), without self and cls. docstring: cleaned of its indentation.
    """

    kind: str
    name: str
    signature: str
    parameters: tuple[tuple[str, str], ...]
    docstring: str


def python_name() -> str:
    """Implementation and version, e.g. `cpython3.11.7`: other versions have other texts."""
    return f"{sys.implementation.name}{platform.python_version()}"


def digest() -> str:
    """Hexadecimal SHA-256 over the Python version and all sources, in a fraction of the time that parsing takes."""
    total = hashlib.sha256(python_name().encode())
    for module, path in sorted({**_sources(), **_topics_source()}.items()):
        content = path.read_bytes()
        total.update(f"\n{module} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def read_topics() -> Iterator[tuple[str, str]]:
    """(name, text) of the language reference's topics; none where the build leaves them out."""
    try:
        texts = importlib.import_module("pydoc_data.topics").topics
    except ModuleNotFoundError:
        return
    for name in sorted(texts):
        yield f"topics.{name}", texts[name]


def find_documented() -> Iterator[Documented]:
    """Everything in the built-ins and the standard library's source files that has a docstring."""
    yield from _built_ins()
    for module, tree in _trees():
        if docstring := ast.get_docstring(tree):
            yield Documented("module", module, "", (), docstring)
        yield from _definitions(tree.body, module, inside_class=False)


def find_code() -> Iterator[tuple[str, str]]:
    """(qualified name, code) of every function and class at the top level of a module, without docstrings and comments.

    The code is written anew from the syntax tree, in one style.
    """
    for module, tree in _trees():
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                _remove_docstrings(node)
                yield f"{module}.{node.name}", ast.unparse(node)


def _remove_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            while ast.get_docstring(node, clean=False) is not None:  # a text behind one becomes the next
                node.body = node.body[1:] or [ast.Pass()]


def _trees() -> Iterator[tuple[str, ast.Module]]:
    """(name, syntax tree) of every module that is source."""
    for module, path in sorted(_sources().items()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old sources are not ours to report
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                continue  # a template, not a module
        yield module, tree


def _sources() -> dict[str, Path]:
    """Module name -> source file, for the modules that belong to Python itself."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, Path] = {}
    for folder, folders, files in os.walk(root):
        parts = Path(folder).relative_to(root).parts
        names = [file.removesuffix(".py") for file in files if file.endswith(".py")]
        found |= {".".join((*parts, name)): Path(folder, f"{name}.py") for name in names if _belongs(parts, name)}
        folders[:] = [name for name in folders if _belongs(parts, name)]  # site-packages is not even looked at
    return {module.removesuffix(".__init__"): path for module, path in found.items()}


def _belongs(parts: tuple[str, ...], name: str) -> bool:
    top = (*parts, name)[0]
    # _sysconfigdata_* differs from build to build of the same Python.
    ours = top in sys.stdlib_module_names and not top.startswith("_sysconfigdata")
    return ours and name.isidentifier() and name not in _SKIPPED_MODULES


def _topics_source() -> dict[str, Path]:
    path = Path(sysconfig.get_paths()["stdlib"]) / "pydoc_data" / "topics.py"
    return {"pydoc_data.topics": path} if path.is_file() else {}


def _definitions(body: list[ast.stmt], prefix: str, inside_class: bool) -> Iterator[Documented]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            name = f"{prefix}.{node.name}"
            if docstring := ast.get_docstring(node):
                yield Documented("class", name, "", (), docstring)
            yield from _definitions(node.body, name, inside_class=True)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if docstring := ast.get_docstring(node):
                yield _function(node, f"{prefix}.{node.name}", inside_class, docstring)
        else:  # definitions under if, try and with
            for field in ("body", "orelse", "finalbody"):
                yield from _definitions(getattr(node, field, None) or [], prefix, inside_class)
            for handler in getattr(node, "handlers", []):
                yield from _definitions(handler.body, prefix, inside_class)


def _function(
    node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, inside_class: bool, docstring: str
) -> Documented:
    arguments = node.args
    static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in node.decorator_list)
    positional = arguments.posonlyargs + arguments.args
    if inside_class and not static and positional:
        (arguments.posonlyargs or arguments.args).pop(0)  # self or cls; defaults belong to the last arguments
        del arguments.defaults[: max(0, len(arguments.defaults) - len(positional) + 1)]
    positional = arguments.posonlyargs + arguments.args
    for argument in (*positional, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None:
            argument.annotation = None
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    named = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    parameters = tuple((argument.arg, ast.unparse(default) if default else "") for argument, default in named)
    kind = "method" if inside_class else "function"
    return Documented(kind, name, f"({ast.unparse(arguments)})", parameters, docstring)


def _built_ins() -> Iterator[Documented]:
    for name, value in sorted(vars(builtins).items()):
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isbuiltin(value)):
            continue  # what is left are constants, and helpers that `site` puts there
        yield from _built_in("class" if inspect.isclass(value) else "function", name, value)
        if inspect.isclass(value):
            for member, function in sorted(vars(value).items()):
                if inspect.isroutine(function) and not member.startswith("_"):
                    yield from _built_in("method", f"{name}.{member}", function)


def _built_in(kind: str, name: str, value: Any) -> Iterator[Documented]:
    docstring = getattr(value, "__doc__", None)
    if not isinstance(docstring, str) or not docstring.strip():
        return
    signature = ""
    parameters: tuple[tuple[str, str], ...] = ()
    if kind != "class":
        try:
            known = inspect.signature(value)
        except (TypeError, ValueError):  # C functions without a text signature
            known = None
        if known is not None:
            kept = [parameter for parameter in known.parameters.values() if parameter.name not in ("self", "type")]
            signature = _INSTANCE_ADDRESS.sub("", str(known.replace(parameters=kept)))
            parameters = tuple(
                (parameter.name, "" if parameter.default is parameter.empty else repr(parameter.default))
                for parameter in kept
                if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            )
    yield Documented(kind, name, signature, parameters, inspect.cleandoc(docstring))


def keep_texts(texts: Iterable[tuple[str, str]], min_characters: int) -> Iterator[dict[str, str]]:
    """Of (name, text) the texts that are long enough and can be written, exact copies once, as examples of builders."""
    seen = set()
    for name, text in texts:
        if len(text) >= min_characters and text not in seen and is_unicode(text):
            seen.add(text)
            yield {"text": text, "source": name}


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; a docstring may show half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
