"""Which files of a published model are fetched: those that the readers know by name, no pickle and no archive."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llama_exp.errors import InputError, Problem
from llama_exp.files.json_file import read_json
from llama_exp.preset.download_errors import Server

CONFIG_FILE = "config.json"
SMALL_FILES = (
    CONFIG_FILE,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    # KerasHub
    "metadata.json",
    "preprocessor.json",
    "task.json",
    "assets/tokenizer/vocabulary.spm",
    "assets/tokenizer/vocabulary.json",
    "assets/tokenizer/merges.txt",
    # transformers
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
# One file, else the table of several; per format the name of each.
KERAS_HUB = ("model.weights.h5", "model.weights.json")
TRANSFORMERS = ("model.safetensors", "model.safetensors.index.json")
MAX_TABLE_BYTES = 16 << 20
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\:]")
_LONGEST_NAME = 255


@dataclass(frozen=True)
class RemoteFile:
    """A file that a server offers.

    Attributes:
        name: path below the model's folder, with `/`.
        size: bytes; None: the server does not say.
        digest: `sha256:<hex>`, `git-sha1:<hex>` (of a git blob) or `md5:<hex>`; None: the listing has none.
    """

    name: str
    size: int | None
    digest: str | None = None


def check_names(server: Server, files: Iterable[RemoteFile]) -> dict[str, RemoteFile]:
    """The files by name; one name that could lead out of a folder, and all are refused."""
    by_name: dict[str, RemoteFile] = {}
    for file in files:
        parts = file.name.split("/")
        strange = _UNSAFE.search(file.name) or any(
            part in ("", ".", "..") or len(part) > _LONGEST_NAME for part in parts
        )
        if strange or file.name in by_name:
            raise server.error(
                f"the list of files has an unsafe or doubled name: {ascii(file.name)[:80]}",
                "do not use this model; report it to its host",
            )
        by_name[file.name] = file
    return by_name


def select_small_files(names: Iterable[str]) -> list[str]:
    """Configuration and tokenizer, as far as they are there."""
    present = set(names)
    return [name for name in SMALL_FILES if name in present]


def weight_table(server: Server, folder: Path, names: Iterable[str]) -> str | None:
    """The table of shards of a model whose small files lie in `folder`; None: its weights are one file."""
    present = set(names)
    single, table = _weight_names(folder)
    if single not in present and table not in present:
        raise server.error(*_no_weights(present, single, table))
    return None if single in present else table


def has_weights(folder: Path) -> bool:
    """Whether `folder` holds weights, checked or not, whole or not."""
    return any((folder / name).exists() for name in _weight_names(folder))


def select_weight_files(server: Server, folder: Path, names: Iterable[str]) -> list[str]:
    """The weight files: the single one, or all that the table in `folder` lists."""
    present = set(names)
    single, table = _weight_names(folder)
    if single in present:
        return [single]
    listed = shards(folder / table)
    if missing := [name for name in listed if name not in present]:
        raise server.error(
            f"{table} lists files that are not there: {', '.join(map(ascii, missing[:3]))[:120]}",
            "the upload is incomplete or damaged: tell its author, or use another model",
        )
    return listed


def _weight_names(folder: Path) -> tuple[str, str]:
    return KERAS_HUB if "registered_name" in read_json(folder / CONFIG_FILE) else TRANSFORMERS


def _no_weights(present: set[str], single: str, table: str) -> tuple[str, str]:
    if any(name.endswith(".gguf") for name in present):
        return "it has GGUF files only", "download one of them and give its path: preset.source=<file.gguf>"
    if any(name.endswith((".bin", ".pth", ".pt", ".ckpt", ".pkl")) for name in present):
        return "its weights are pickles, which can run code and are never loaded", f"use a model that has {single}"
    return f"it has neither {single} nor {table}", "use a model that has one of them"


def shards(table: Path) -> list[str]:
    """The files named in a table of shards, each once, sorted.

    Raises:
        InputError: it is no such table.
    """
    entries = read_json(table, MAX_TABLE_BYTES).get("weight_map")
    values = list(entries.values()) if isinstance(entries, dict) else []
    names = {name for value in values for name in (value if isinstance(value, list) else [value])}
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            Problem("no table of shards", str(table), "weight_map is missing or wrong", "download the model again")
        )
    return sorted(names)


def is_whole(folder: Path, load_weights: bool) -> bool:
    """Whether a folder that another program filled has a configuration and every weight file it speaks of."""
    if not (folder / CONFIG_FILE).is_file():
        return False
    if not load_weights:
        return True
    single, table = _weight_names(folder)
    if (folder / single).is_file():
        return True
    return (folder / table).is_file() and all((folder / name).is_file() for name in shards(folder / table))
