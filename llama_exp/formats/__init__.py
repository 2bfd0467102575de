"""Models on disk: KerasHub presets, Hugging Face checkpoints, GGUF files, adapters. Imports no framework.

`open_checkpoint` reads whatever format a path has, `read_architecture` and `read_quantization` its configuration alone,
`open_adapter` a LoRA adapter; `writing` makes a folder that appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llama_exp.errors import InputError, Problem, StorageError
from llama_exp.files.json_file import inside, names_in, open_regular, read_json
from llama_exp.files.whole_folder import remove_stale, whole_folder
from llama_exp.files.writing import storage_errors

if TYPE_CHECKING:  # NumPy, which the check of a config does without; it reads files through `json_file`
    from llama_exp.architecture import Quantization
    from llama_exp.formats.adapter import Adapter
    from llama_exp.formats.checkpoint import Checkpoint

CONFIG_FILE = "config.json"
GGUF_MAGIC = b"GGUF"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
FORMATS = "a KerasHub preset or Hugging Face checkpoint (a folder with config.json), or a .gguf file"
# A folder with anything else in it is somebody's work and is never replaced.
MODEL_FILES = (
    CONFIG_FILE,
    "metadata.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "assets",
    "README.md",
    "preprocessor.json",
    "task.json",
    "model.weights.json",
    "*.weights.h5",
    "*.safetensors",
    "model.safetensors.index.json",
    "*.gguf",
    "Modelfile",
)


@contextlib.contextmanager
def open_checkpoint(path: str | Path) -> Iterator[Checkpoint]:
    """A model on disk, checked against its own configuration before anything is read.

    Args:
        path: a KerasHub preset's or Hugging Face checkpoint's folder, or a .gguf file.

    Raises:
        InputError: none of these, damaged, or not a Llama.
    """
    with _reader(Path(path)).open_checkpoint(Path(path)) as checkpoint:
        yield checkpoint


def read_architecture(path: str | Path) -> dict:
    """Every constructor argument of the model in `path`, in `architecture.CONFIG_KEYS`; needs no weight files.

    Raises:
        InputError: as `open_checkpoint`.
    """
    return _reader(Path(path)).read_architecture(Path(path))


def read_quantization(path: str | Path) -> Quantization | None:
    """How the weights of the model in `path` are stored, by its configuration alone; None: in floating point.

    Raises:
        InputError: as `open_checkpoint`.
    """
    return _reader(Path(path)).read_quantization(Path(path))


def read_context_length(path: str | Path) -> int | None:
    """Tokens that the model in `path` is meant for, by its configuration alone; None: it does not say.

    Raises:
        InputError: as `open_checkpoint`.
    """
    return _reader(Path(path)).read_context_length(Path(path))


@contextlib.contextmanager
def open_adapter(path: str | Path, config: Mapping) -> Iterator[Adapter]:
    """An adapter on disk, checked against the model of `config` before any tensor is read.

    Args:
        path: a folder with `adapter_config.json` and `adapter_model.safetensors`, or a KerasHub `.lora.h5` file; the
            content decides.
        config: the model's constructor arguments, `architecture.CONFIG_KEYS`.

    Raises:
        InputError: neither of the two, damaged, uses what is not supported here, or made for another architecture.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        from llama_exp.formats.peft import adapter as peft

        opened = peft.open_adapter(path, config)
    else:
        with open_regular(path) as file:
            is_hdf5 = file.read(len(HDF5_MAGIC)) == HDF5_MAGIC
        if not is_hdf5:
            action = "give a folder of PEFT's or a .lora.h5 file of KerasHub's"
            raise InputError.about(path, "this is no adapter", "a file that is not HDF5", action)
        from llama_exp.formats.keras_hub import lora as keras_lora

        opened = keras_lora.open_adapter(path, config)
    with opened as adapter:
        yield adapter


@contextlib.contextmanager
def writing(folder: str | Path) -> Iterator[Path]:
    """A new folder beside `folder`, which takes its place when the block ends and vanishes if it fails.

    A process killed at any moment leaves the old model or the new one under the name, never a mixture; and perhaps a
    draft beside it, which the next writer of the same folder removes.

    Args:
        folder: must not exist, be empty, or hold nothing but a model, which is replaced.

    Raises:
        StorageError: the folder is not replaceable, or cannot be written.
    """
    folder = Path(folder)

    def describe(error: OSError) -> Problem:
        action = "free space, or choose another folder"
        return Problem("the model could not be written", str(folder), error.strerror or str(error), action)

    with storage_errors(folder, describe):
        _require_replaceable(folder)
        remove_stale(folder.parent, re.escape(folder.name), lambda draft: not _foreign(draft))
        with whole_folder(folder) as draft:
            yield draft


def _reader(path: Path):
    """The module that reads the format of `path`."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise InputError.about(path, "there is no model", found, f"give {FORMATS}") from error
    if not stat.S_ISDIR(mode):
        with open_regular(path) as file:
            is_gguf = file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
        if not is_gguf and path.suffix != ".gguf":
            raise InputError.about(path, "the file is not a model", "no GGUF file", f"give {FORMATS}")
        from llama_exp.formats.gguf import checkpoint as gguf

        return gguf
    config = inside(path, CONFIG_FILE)
    if not os.path.lexists(config):
        raise InputError.about(path, f"the folder has no {CONFIG_FILE}", names_in(path), f"give {FORMATS}")
    document = read_json(config)
    if "registered_name" in document:
        from llama_exp.formats.keras_hub import checkpoint as keras_hub

        return keras_hub
    if "model_type" in document or "architectures" in document:
        from llama_exp.formats.hugging_face import checkpoint as hugging_face

        return hugging_face
    found = f"keys {', '.join(sorted(map(repr, document))[:8])}"
    raise InputError.about(config, "not the configuration of a model", found, f"give {FORMATS}")


def _require_replaceable(folder: Path) -> None:
    if not os.path.lexists(folder):
        return
    if foreign := _foreign(folder) if folder.is_dir() else [folder.name]:
        what = "the folder holds other things than a model and is not replaced"
        raise StorageError(Problem(what, str(folder), ", ".join(foreign[:5]), "choose a new or an empty folder"))


def _foreign(folder: Path) -> list[str]:
    """What is in a folder beside a model."""
    return sorted(path.name for path in folder.iterdir() if not any(path.match(name) for name in MODEL_FILES))
