"""Limits on the user's own YAML files, applied before anything expands them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from llama_exp.errors import Problem
from llama_exp.files.shown_path import show_path
from llama_exp.files.yaml_file import MAX_NODES, expanded_size

LARGEST_BYTES = 1_000_000
MOST_FILES = 2_000
DEEPEST = 100  # PyYAML's time grows with the square of it, and Python's stack ends at a few hundred
_DEEP_LINE = re.compile(rb"^[ -]{%d}" % DEEPEST, re.MULTILINE)


def find_oversized_files(folder: Path) -> Iterator[Problem]:
    """A problem for each YAML file below `folder` that is too large, also by its aliases, or nested too deeply."""
    for index, path in enumerate(sorted(folder.rglob("*.yaml"))):
        if index == MOST_FILES:
            yield Problem("holds too many YAML files", str(folder), f"more than {MOST_FILES}", "name a smaller folder")
            return
        yield from _oversized(path, show_path(path))


def _oversized(path: Path, where: str) -> Iterator[Problem]:
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        yield Problem("is too large for a config file", where, f"{size} bytes", f"at most {LARGEST_BYTES} bytes")
        return
    content = path.read_bytes()
    try:
        if _may_be_deep(content) and _is_deep(content):
            yield Problem("is nested too deeply", where, f"more than {DEEPEST} levels", "write it flatter")
        elif b"*" in content and _num_nodes(content) > MAX_NODES:
            action = "write the values out, or use ${interpolations}"
            yield Problem("grows too large once its aliases are expanded", where, f"> {MAX_NODES} nodes", action)
    except yaml.YAMLError:
        return  # reported with its line where it is loaded


def _may_be_deep(content: bytes) -> bool:
    return content.count(b"[") + content.count(b"{") > DEEPEST or _DEEP_LINE.search(content) is not None


def _is_deep(content: bytes) -> bool:
    depth = 0
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            return True
    return False


def _num_nodes(content: bytes) -> int:
    try:
        return expanded_size(yaml.compose(content, Loader=yaml.SafeLoader))
    except RecursionError:  # an alias of itself
        return MAX_NODES + 1
