"""A YAML file that came from anywhere, as plain data: no tag makes an object, no alias fills the memory.

Imports no framework.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from llama_exp.errors import InputError
from llama_exp.files.json_file import inside, open_regular

MAX_BYTES = 1 << 20
MAX_NODES = 20_000  # with every alias written out


def read_yaml(folder: Path, name: str) -> dict:
    """The mapping in a file of `folder`.

    Raises:
        InputError: the file cannot be read, is too large (also by its aliases), names a class, or holds no mapping.
    """
    document = _read(path := inside(folder, name))
    if not isinstance(document, dict):
        raise _unreadable(path, f"a {type(document).__name__} instead of a mapping")
    return document


def read_yaml_texts(folder: Path, name: str) -> list[str]:
    """The list of texts in a file of `folder`; raises as `read_yaml` does."""
    document = _read(path := inside(folder, name))
    if not isinstance(document, list) or not all(isinstance(item, str) for item in document):
        raise _unreadable(path, f"a {type(document).__name__} instead of a list of texts")
    return document


def _read(path: Path) -> Any:
    with open_regular(path) as file:
        try:
            content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise _unreadable(path, error.strerror or str(error)) from error
    if len(content) > MAX_BYTES:
        raise _unreadable(path, f"more than {MAX_BYTES} bytes")
    try:
        loader = yaml.SafeLoader(content)
        node = loader.get_single_node()
        if b"*" in content and (num_nodes := expanded_size(node)) > MAX_NODES:
            raise _unreadable(path, f"{num_nodes} nodes once its aliases are written out, limit {MAX_NODES}")
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(path, " ".join(str(error).split())[:200]) from error


def expanded_size(node: yaml.Node | None, sizes: dict[int, int] | None = None) -> int:
    """Nodes below and including `node`, an alias counted as often as it is used; a cycle raises RecursionError."""
    sizes = {} if sizes is None else sizes
    if node is None:
        return 0
    if id(node) not in sizes:
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [child for entry in children for child in (entry if isinstance(entry, tuple) else (entry,))]
        sizes[id(node)] = 1 + sum(expanded_size(child, sizes) for child in flat)
    return sizes[id(node)]


def _unreadable(path: Path, found: str) -> InputError:
    return InputError.about(path, "the file cannot be read as plain data", found, "restore the file")
