"""Paths of a recorded config as paths on this machine.

    what an archive holds                               first: it is what the run has read
    a folder that the user names with --data            under the recorded path, else under the file's own name
    the path as it was recorded                         here, else in the folder where the run was started

Contents are compared by fingerprint in any case.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.errors import ConfigError, InputError, Problem

KEYS = (("dataset", "files"), ("dataset", "data_dir"), ("tokenizer", "file"), ("lora", "source"), ("preset", "source"))


@dataclass(frozen=True)
class Places:
    """Where to look.

    folder: of the recorded run. packed: recorded path -> files below `folder`. working_folder: where the run was
    started. data: of the user; None: not stated.
    """

    folder: Path
    packed: Mapping[str, Sequence[str]]
    working_folder: str | None
    data: Path | None

    def __post_init__(self) -> None:
        if self.data is not None and not self.data.is_dir():
            raise ConfigError(Problem("no such folder", "--data", str(self.data), "name the data files' folder"))

    def change(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The config with paths of this machine.

        Raises:
            InputError: one that is needed is found nowhere.
        """
        changed = dict(values)
        for section, key in KEYS:
            node = changed.get(section)
            if isinstance(node, Mapping) and node.get(key) is not None:
                changed[section] = {**node, key: self._change(node[key], f"{section}.{key}")}
        return changed

    def _change(self, value: Any, where: str) -> Any:
        if isinstance(value, list):
            return [
                path for entry in value for path in (self.find(entry, where) if isinstance(entry, str) else [entry])
            ]
        if not isinstance(value, str):
            return value
        found = self.find(value, where)
        return found[0] if len(found) == 1 else found

    def find(self, path: str, where: str) -> list[str]:
        """The files of a recorded path or pattern of the config key `where`."""
        if path in self.packed:
            return [str(self.folder.absolute() / name) for name in self.packed[path]]
        candidates = [path]
        if self.data is not None:
            candidates = [str(self.data / path), str(self.data / os.path.basename(path)), path]
        if self.working_folder is not None and not os.path.isabs(path) and "://" not in path:
            candidates.append(os.path.join(self.working_folder, path))
        found = next((candidate for candidate in candidates if _exists(candidate)), None)
        if found is None and where != "preset.source":  # whose names may also be of servers
            what = "what the recorded run has read is not on this machine"
            raise InputError.about(where, what, path, "name the folder that it lies in: --data <folder>")
        return [found or path]


def _exists(path: str) -> bool:
    typed = os.path.expanduser(path)
    return os.path.exists(typed) or any(glob.iglob(typed, recursive=True))
