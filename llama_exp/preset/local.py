"""Presets on this machine: a folder, or a `.gguf` file. Imports no framework."""

from __future__ import annotations

import difflib
import os
import stat
from pathlib import Path

from llama_exp.errors import InputError, Problem
from llama_exp.preset.ledger import Ledger
from llama_exp.preset.table import PRESETS

CONFIG_FILE = "config.json"
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
KEY = "preset.source"
KINDS = "a folder in KerasHub's or transformers' format, or a .gguf file"


def find(source: str, where: str = KEY) -> Path:
    """The folder or `.gguf` file that `source` names; nothing is opened, so that no pipe can hang the run.

    Args:
        source: see `preset.resolve`.
        where: config key or argument that names it, for messages.

    Raises:
        InputError: there is no such thing, or it is of another kind.
    """
    path = Path(source).expanduser()
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(_absent(path, source, where, error)) from None
    if stat.S_ISDIR(mode):
        return _checked_folder(path, source, where)
    if not stat.S_ISREG(mode):
        raise InputError.about(where, "a pipe, device or socket is no preset", source, f"give {KINDS}")
    name = path.name.lower()
    if name.endswith(ARCHIVES):
        raise InputError.about(
            where, "archives are not unpacked here", source, "unpack it yourself and give the folder"
        )
    if not name.endswith(".gguf"):
        raise InputError.about(
            where, "this file is no preset", source, f"give {KINDS}; of a folder's files give the folder"
        )
    if not os.access(path, os.R_OK):
        raise InputError.about(where, "the file may not be read by this user", source, f"chmod u+r {path}")
    return path


def in_kaggle_cache(handle: str) -> bool:
    """Whether the version that a handle names is in kagglehub's cache, whole; does not import kagglehub.

    Either this package fetched it and nothing was changed since, or kagglehub did and marked it.
    """
    *model, version = handle.removeprefix("kaggle://").split("/")
    cache = Path(os.environ.get("KAGGLEHUB_CACHE") or "~/.cache/kagglehub").expanduser()
    home = cache.joinpath("models", *model)
    if Ledger(home / ".llama_exp" / f"{version}.json", home / version).is_whole(load_weights=True):
        return True
    return (home / f"{version}.complete").exists() and (home / version / CONFIG_FILE).exists()


def _checked_folder(folder: Path, source: str, where: str) -> Path:
    """The folder, if it holds a readable configuration; its content is the format readers' business."""
    try:
        entries = sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        raise InputError.about(
            where, f"the folder cannot be read: {error.strerror}", source, f"chmod u+rx {folder}"
        ) from None
    if CONFIG_FILE in entries:
        return folder
    models = [name for name in entries if name.lower().endswith(".gguf")]
    if models:
        raise InputError.about(
            where,
            "the folder has no config.json, but GGUF files",
            source,
            f"give one of them: {folder / models[0]}",
        )
    inner = [name for name in entries if (folder / name / CONFIG_FILE).is_file()]
    has = f"it holds {', '.join(entries[:6])}{', ...' if len(entries) > 6 else ''}" if entries else "it is empty"
    action = f"did you mean {folder / inner[0]}?" if inner else f"give {KINDS}"
    raise InputError.about(where, f"the folder has no {CONFIG_FILE}: {has}", source, action)


def _absent(path: Path, source: str, where: str, error: Exception) -> Problem:
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        # A loop of links, a name too long, a folder that may not be searched, a file in the place of a folder.
        return Problem(f"cannot be reached: {error.strerror}", where, source, f"give {KINDS}")
    if path.is_symlink():
        return Problem("the link leads nowhere", where, source, f"give {KINDS}")
    near = difflib.get_close_matches(source, PRESETS, n=1)
    if not near and ("/" in source or source.startswith((".", "~"))) and "\0" not in source:
        return Problem("no such folder or file", where, source, _say_what_is_there(path))
    guess = f"did you mean {near[0]}? Otherwise " if near else ""
    action = f"{guess}`llama-exp presets` lists the built-in ones; or kaggle://..., hf://..., {KINDS}"
    if where == KEY:
        action += ", preset=none"
    return Problem("neither a built-in preset nor an existing folder or file", where, source, action)


def _say_what_is_there(path: Path) -> str:
    """What the nearest existing folder on the way to a path holds."""
    missing, above = path.absolute(), path.absolute().parent
    while not above.is_dir():
        missing, above = above, above.parent
    try:
        names = sorted(entry.name for entry in os.scandir(above) if not entry.name.startswith("."))
    except OSError:
        names = []
    near = difflib.get_close_matches(missing.name, names, n=1)
    there = f"{os.path.relpath(above)} holds {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
    guess = f"did you mean {os.path.relpath(above / near[0])}? " if near else ""
    return guess + (there if names else f"{os.path.relpath(above)} is empty")
