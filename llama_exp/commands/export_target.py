"""Where a command writes a model and how: the options that `convert` and `merge` share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ml_dtypes
import numpy as np

from llama_exp.architecture import Quantization
from llama_exp.commands.parser import positive
from llama_exp.errors import ConfigError, Problem, StorageError
from llama_exp.formats.gguf.encoding import BLOCK_NAMES

FORMATS = ("keras_hub", "hf", "gguf")
DTYPES = {
    "float32": np.dtype("float32"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype("float16"),
}
GGUF_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", **{name: name for name in BLOCK_NAMES}}
_SHARD_GIB = 10.0
_FORMATS_HELP = "keras_hub: a KerasHub preset; hf: transformers; gguf: llama.cpp and Ollama"


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a model goes and how.

    Attributes:
        folder: must not exist or be empty; with `overwrite` it may hold a model, and nothing else.
        format: one of `FORMATS`.
        dtype: of the weights, in `DTYPES`, or for gguf also in `encoding.BLOCK_NAMES`; None: as they are.
        max_shard_gib: larger weights are split into files of about this size.
        overwrite: replace the model in `folder`.
        quantization: that floating-point weights get on the way; None: none.
        context_length: tokens that the model is meant for, for gguf; None: as its files say.
    """

    folder: Path
    format: str
    dtype: str | None
    max_shard_gib: float
    overwrite: bool
    quantization: Quantization | None = None
    context_length: int | None = None


def add_arguments(parser, format_required: bool) -> None:
    """The options that make a `Target`."""
    parser.add_argument("--to", required=True, metavar="DIR", help="folder to write; it appears whole or not at all")
    default = {"required": True} if format_required else {"default": FORMATS[0]}
    parser.add_argument("--format", choices=FORMATS, **default, help=_FORMATS_HELP)
    parser.add_argument(
        "--dtype",
        type=_dtype_by_name,
        choices=GGUF_TYPES,
        help="type of the weights; Q8_0, Q4_0 and Q4_1 for gguf only (default: as they are)",
    )
    length_help = "gguf: tokens that the model is meant for (default: as its files say)"
    parser.add_argument("--context-length", type=positive, metavar="N", help=length_help)
    parser.add_argument("--overwrite", action="store_true", help="replace the model in DIR")


def target(options, max_shard_gib: float | None = None) -> Target:
    """What the options of `add_arguments` say; ConfigError where one of them is not for the format."""
    problems = []
    if options.format != "gguf":
        action = "give --format gguf, or leave it out"
        if options.dtype in BLOCK_NAMES:
            what, found = "only a GGUF file has such blocks", f"{options.dtype} with --format {options.format}"
            problems.append(Problem(what, "--dtype", found, f"{action}; for keras_hub: convert --quantization"))
        if options.context_length is not None:
            what, found = "is for GGUF files only", f"{options.context_length} with --format {options.format}"
            problems.append(Problem(what, "--context-length", found, action))
    elif max_shard_gib is not None:
        what, found = "a GGUF file is a single one", f"{max_shard_gib:g} with --format gguf"
        problems.append(Problem(what, "--max-shard-size", found, "leave it out"))
    if problems:
        raise ConfigError(*problems)
    return Target(
        Path(options.to).expanduser(),
        options.format,
        options.dtype,
        max_shard_gib or _SHARD_GIB,
        options.overwrite,
        context_length=options.context_length,
    )


def _dtype_by_name(name: str) -> str:
    """The name as it is, or ours of a type that GGUF calls otherwise."""
    names = {gguf.lower(): dtype for dtype, gguf in GGUF_TYPES.items()}
    return names.get(name.lower(), name)


def require_free(place: Target, source: Path) -> None:
    """Fails if the target may not be written, before anything is read.

    Raises:
        StorageError: there is something in the folder that must not be replaced, or it is the source itself.
    """
    folder = place.folder
    if folder.exists() and (folder.resolve() == source.resolve() or folder.resolve() in source.resolve().parents):
        action = "choose another folder with --to"
        raise StorageError(Problem("the target is where the model comes from", "--to", str(folder), action))
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())) and not place.overwrite:
        names = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) if folder.is_dir() else "a file"
        action = "choose another folder, or give --overwrite if it holds a model that may be replaced"
        raise StorageError(Problem("there is something in the target", str(folder), names, action))
