"""What was fetched and checked, so that the next start neither asks nor hashes again, and notices a changed file."""

from __future__ import annotations

import os
from pathlib import Path

from llama_exp.files.json_file import read_record
from llama_exp.files.writing import write_json


class Ledger:
    """The record of one revision: its checked files, and whether they are all that it needs.

    A file counts as unchanged while its size and time of modification are the recorded ones.

    Attributes:
        weights: whether the weight files belong to the record; else only configuration and tokenizer do.
    """

    def __init__(self, path: Path, folder: Path):
        self._path, self._folder = path, folder
        # A record that cannot be understood only costs another check.
        record = read_record(path) or {}
        self._complete = record.get("complete") is True
        self.weights = record.get("weights") is True
        files = record.get("files")
        self._files: dict[str, dict] = files if isinstance(files, dict) else {}

    @property
    def names(self) -> list[str]:
        """The recorded files."""
        return list(self._files)

    def has(self, name: str) -> bool:
        """Whether the file was checked and has not changed since."""
        entry = self._files.get(name)
        if not isinstance(entry, dict):
            return False
        try:
            stat = os.stat(self._folder / name)
        except OSError:
            return False
        return (entry.get("size"), entry.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns)

    def is_whole(self, load_weights: bool) -> bool:
        """Whether everything needed was fetched and is unchanged."""
        return self._complete and (self.weights or not load_weights) and all(map(self.has, self._files))

    def changed(self) -> list[str]:
        """Files that were checked and are other ones now, or gone."""
        return [name for name in self._files if not self.has(name)]

    def add(self, name: str, digest: str | None) -> None:
        """Notes a checked file."""
        stat = os.stat(self._folder / name)
        self._files[name] = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "digest": digest}
        self._write()

    def complete(self, names: list[str], weights: bool) -> None:
        """Notes that `names` are all of the revision, with its weights or without."""
        self._files = {name: entry for name, entry in self._files.items() if name in names}
        self._complete, self.weights = True, weights
        self._write()

    def _write(self) -> None:
        record = {"complete": self._complete, "weights": self.weights, "files": self._files}
        write_json(self._path, record)
