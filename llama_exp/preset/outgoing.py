"""What would leave this machine: the files of a model or an adapter, found whole, and nothing else. Asks no server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_exp.errors import InputError
from llama_exp.formats import CONFIG_FILE, MODEL_FILES, open_checkpoint

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
CARD = "README.md"
# What people put beside a model.
_COMPANIONS = ("LICENSE*", "NOTICE*", "*.md", ".gitattributes")
_ALLOWED = (*MODEL_FILES, *ADAPTER_FILES, *_COMPANIONS)
_FREE_FOLDER = "assets"  # of KerasHub: what is in it is the tokenizer's


@dataclass(frozen=True)
class Outgoing:
    """A folder that may be sent.

    Attributes:
        folder: of the files.
        kind: model, GGUF model or adapter.
        sizes: bytes of each file, by its path in the folder.
    """

    folder: Path
    kind: str
    sizes: dict[str, int]

    @property
    def has_card(self) -> bool:
        """Whether a model card is among the files."""
        return CARD in self.sizes


def look(source: str) -> Outgoing:
    """The files of a folder, or of what a run has left.

    Args:
        source: a run's folder, or one that holds a model or an adapter.

    Raises:
        InputError: there is no whole model and no adapter, or other things lie beside them.
    """
    folder = _exported(Path(source).expanduser())
    files = dict(_files(folder, folder))
    if foreign := [name for name in files if not _is_allowed(name)]:
        action = f"move them elsewhere; only files of a model, {', '.join(_COMPANIONS)} are sent"
        raise InputError.about(folder, "other things lie beside the model", ", ".join(sorted(foreign)[:5]), action)
    return Outgoing(folder, _kind(folder, files), files)


def _exported(folder: Path) -> Path:
    """`model/` or `adapter/` of a run, else the folder itself."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        action = "give a run's folder, or one that convert or merge has written"
        raise InputError.about(folder, "this is no folder to send", found, action)
    if not (folder / "run.json").is_file():
        return folder
    for name in ("model", "adapter"):
        if (folder / name).is_dir():
            return folder / name
    action = f"finish it first: llama-exp train ... resume={folder}"
    raise InputError.about(folder, "the run has left no adapter/ and no model/", "run.json", action)


def _files(folder: Path, top: Path) -> Iterator[tuple[str, int]]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
            action = "put the file itself there: what a link leads to is not sent"
            raise InputError.about(path, "is no ordinary file", "a link" if entry.is_symlink() else "a device", action)
        if entry.is_dir():
            yield from _files(path, top)
        else:
            yield path.relative_to(top).as_posix(), entry.stat().st_size


def _is_allowed(name: str) -> bool:
    path = Path(name)
    if path.parts[0] == _FREE_FOLDER:
        return not any(part.startswith(".") for part in path.parts)
    return len(path.parts) == 1 and any(path.match(pattern) for pattern in _ALLOWED)


def _kind(folder: Path, files: dict[str, int]) -> str:
    """What the folder holds, after every file of it was opened."""
    gguf = [name for name in files if name.endswith(".gguf")]
    if set(ADAPTER_FILES) <= set(files):
        from llama_exp.formats.safetensors_file import open_file

        with open_file(folder / ADAPTER_FILES[1]):
            return "adapter"
    if CONFIG_FILE in files:
        with open_checkpoint(folder):
            return "model"
    for name in gguf:
        with open_checkpoint(folder / name):
            pass
    if gguf:
        return "GGUF model"
    wanted = f"{CONFIG_FILE}, a .gguf file, or {' and '.join(ADAPTER_FILES)}"
    found = ", ".join(sorted(files)[:5]) or "nothing"
    raise InputError.about(folder, "the folder holds no model and no adapter", found, f"it needs {wanted}")
