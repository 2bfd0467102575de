"""Limits on the user's own YAML files, applied before anything expands them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from llama_exp.check.composition import shown_path
from llama_exp.errors import Problem
from llama_exp.yaml_data import MAX_NODES, expanded_size

LARGEST_BYTES = 1_000_000
MOST_FILES = 2_000


def oversized_files(folder: Path) -> Iterator[Problem]:
    """A problem for each YAML file below `folder` that is too large, by itself or once its aliases are expanded."""
    for index, path in enumerate(sorted(folder.rglob("*.yaml"))):
        where = shown_path(path)
        if index == MOST_FILES:
            yield Problem("holds too many YAML files", str(folder), f"more than {MOST_FILES}", "name a smaller folder")
            return
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            yield Problem("is too large for a config file", where, f"{size} bytes", f"at most {LARGEST_BYTES} bytes")
        elif b"*" in (content := path.read_bytes()):
            try:
                num_nodes = expanded_size(yaml.compose(content, Loader=yaml.SafeLoader))
            except yaml.YAMLError:
                continue  # reported with its line where it is loaded
            except RecursionError:
                num_nodes = MAX_NODES + 1
            if num_nodes > MAX_NODES:
                action = "write the values out, or use ${interpolations}"
                yield Problem("grows too large once its aliases are expanded", where, f"> {MAX_NODES} nodes", action)
