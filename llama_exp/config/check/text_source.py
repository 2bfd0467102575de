"""Hydra's reader of YAML files, with texts as they are written.

YAML 1.1 reads `name: 2025_11_28` as the number 20251128, `1:30` as 90 and `yes` as true. Where the key holds text, what
stands in the file is meant.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource as HydrasSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import Container, DictConfig, ListConfig, OmegaConf

from llama_exp.config.check.spelling import list_texts

GLOBAL = "_global_"
_read: dict[tuple[str, str, str, bytes], ConfigResult] = {}  # by source, file and content


class FileConfigSource(HydrasSource):
    """Reads as its base class, gives texts their spelling back, and parses the same text once.

    Why once: Hydra composes each job of a sweep several times, of the same files.

    It has its base class' name because a launcher sends Hydra's registry to its processes, where it meets Hydra's own
    source, and two classes of one name count as the same.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """See `ConfigSource.load_config`."""
        path = Path(self.path) / (config_path if config_path.endswith(".yaml") else f"{config_path}.yaml")
        if not path.is_file():
            return super().load_config(config_path)  # says that it is not there
        key = (self.provider, self.path, config_path, path.read_bytes())
        if key not in _read:
            result = super().load_config(config_path)
            package = result.header.get("package") or os.path.dirname(config_path).replace("/", ".")
            _respell(result.config, path, "" if package == GLOBAL else package)
            _read[key] = result
        kept = _read[key]  # Hydra takes the defaults list out of what it gets
        return dataclasses.replace(kept, config=copy.deepcopy(kept.config), header=dict(kept.header))


def install() -> None:
    """Makes Hydra read `file://` as above; harmless when called again."""
    Plugins.instance()  # registers Hydra's own sources, once
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


def _respell(cfg: Container, path: Path, package: str) -> None:
    """Puts the text of the file in the place of numbers and truth values that a text key was given."""
    prefix = f"{package}." if package else ""
    inside = [text.removeprefix(prefix) for text in list_texts() if text.startswith(prefix)]
    wrong = [(node, key, where) for text in inside for node, key, where in _find_non_texts(cfg, text.split("."))]
    if not wrong:
        return
    written = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    for node, key, where in wrong:
        scalar = _follow(written, where)
        if scalar is not None and scalar.style is None:
            node[key] = scalar.value


def _find_non_texts(cfg: Any, path: list[str]) -> Iterator[tuple[Any, Any, list[Any]]]:
    """Node, key and whole path of each number or truth value at a path, or in the list there."""
    node = cfg
    for part in path[:-1]:
        node = _value(node, part)
    found = _value(node, path[-1])
    if isinstance(found, ListConfig):
        for index in range(len(found)):
            if _is_no_text(found, index):
                yield found, index, [*path, index]
    elif isinstance(found, (bool, int, float)):
        yield node, path[-1], path


def _is_no_text(items: ListConfig, index: int) -> bool:
    """Whether an item of a list of texts is a number, a truth value or null."""
    special = OmegaConf.is_missing(items, index) or OmegaConf.is_interpolation(items, index)
    return not special and (items[index] is None or isinstance(items[index], (bool, int, float)))


def _value(node: Any, key: Any) -> Any:
    """The value at a key; None where there is none, or one that is missing or an interpolation."""
    is_there = key in list(node) if isinstance(node, DictConfig) else isinstance(node, ListConfig)
    if not is_there or OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
        return None
    return node[key]


def _follow(node: yaml.Node | None, path: list[Any]) -> yaml.ScalarNode | None:
    """The scalar at a path of a YAML document; None where merge keys or aliases hide it."""
    for part in path:
        if isinstance(node, yaml.SequenceNode):
            node = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            entries: Mapping[str, yaml.Node] = {key.value: value for key, value in node.value}
            node = entries.get(part)
    return node if isinstance(node, yaml.ScalarNode) else None
