"""Where in a YAML file a key stands. PyYAML's composer keeps the lines that its loader forgets."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

_MERGE = "tag:yaml.org,2002:merge"
_DEEPEST = 100  # merge keys that lead to merge keys


class YamlLines:
    """The keys of a file with their lines, counted from 1.

    Args:
        text: a YAML document; one that cannot be read has no lines.
    """

    def __init__(self, text: str):
        try:
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError):
            self._root = None

    def find(self, path: Sequence[str]) -> int | None:
        """The line of a key, of an item of a list, or of the whole; None: the file has no such key."""
        node, line = self._root, None if self._root is None else self._root.start_mark.line + 1
        for part in path:
            found = _find_entry(node, part, _DEEPEST)
            if found is None:
                return None
            line, node = found
        return line

    def find_choice(self, group: str, name: str, is_override: bool) -> int | None:
        """The line of the list `defaults` that names a config.

        Args:
            group: folder of the config.
            name: of the config in it.
            is_override: whether the line changes a choice of another file's.
        """
        found = _find_entry(self._root, "defaults", 0)
        entries = found[1].value if found is not None and isinstance(found[1], yaml.SequenceNode) else []
        lines = [line for entry in entries for line in _match_choice(entry, group, name, is_override)]
        return lines[-1] if lines else None


@functools.cache
def read_lines(path: Path) -> YamlLines:
    """The lines of a file; one that cannot be read has none."""
    try:
        return YamlLines(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError):
        return YamlLines("")


def _find_entry(node: yaml.Node | None, part: str, depth: int) -> tuple[int, yaml.Node] | None:
    """Line and value of an entry; its own entries count before those that `<<` takes over."""
    if isinstance(node, yaml.SequenceNode):
        if not part.isdigit() or int(part) >= len(node.value):
            return None
        item = node.value[int(part)]
        return item.start_mark.line + 1, item
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in reversed(node.value):
        if key.tag != _MERGE and part in _spellings(key):
            return key.start_mark.line + 1, value
    for key, value in reversed(node.value):
        for merged in _merged(value) if key.tag == _MERGE and depth else ():
            if found := _find_entry(merged, part, depth - 1):
                return found
    return None


def _merged(node: yaml.Node) -> list[yaml.Node]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else [node]


def _spellings(key: yaml.Node) -> Iterator[str]:
    """A key as it is written and as Python shows it: `on` is True."""
    if isinstance(key, yaml.ScalarNode):
        yield key.value
        try:
            yield str(yaml.SafeLoader("").construct_object(key))
        except (yaml.YAMLError, ValueError):
            return


def _match_choice(entry: yaml.Node, group: str, name: str, is_override: bool) -> Iterator[int]:
    """The line of an entry of a list `defaults`, if it names the config."""
    if isinstance(entry, yaml.ScalarNode):  # `- llama_tiny`: of the same folder, or with its own
        if not is_override and entry.value.partition("@")[0].rpartition("/")[2] == name:
            yield entry.start_mark.line + 1
        return
    for key, value in entry.value if isinstance(entry, yaml.MappingNode) else ():
        words = str(key.value).split()
        part = words[-1].partition("@")[0].strip("/") if words else ""
        names = [item.value for item in _merged(value)]
        if ("override" in words) == is_override and (group == part or group.endswith(f"/{part}")) and name in names:
            yield key.start_mark.line + 1
