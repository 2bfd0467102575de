"""A model into a folder, tensor by tensor: written, read back, compared; then the folder takes its place.

    Checkpoint --read--> hash --write--> draft --read back--> hash: the same? --> DIR

No more than one tensor is in memory at a time, whatever the size of the model; but GPTQ has all of it, as integers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shlex
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from llama_exp import formats
from llama_exp.commands import export_card, export_gguf
from llama_exp.commands.export_target import DTYPES, Target
from llama_exp.commands.sources import Source
from llama_exp.errors import ConfigError, Problem, StorageError
from llama_exp.files.redact import printable
from llama_exp.files.shown_path import show_path
from llama_exp.formats.checkpoint import Checkpoint, Tensor
from llama_exp.formats.hugging_face import checkpoint as hugging_face
from llama_exp.formats.keras_hub import checkpoint as keras_hub
from llama_exp.formats.quantized import dequantize_checkpoint, quantize_checkpoint
from llama_exp.quantization import describe, fit_checkpoint
from llama_exp.run import model_card

_FORMAT_NAMES = {
    "keras_hub": "KerasHub preset",
    "hf": "Hugging Face (transformers)",
    "gguf": "GGUF (llama.cpp, Ollama)",
}


def write(checkpoint: Checkpoint, tokenizer, place: Target, console: Console, source: Source) -> dict[str, str]:
    """Writes a model, and compares what is read back with what was written, bit by bit.

    Args:
        checkpoint: open.
        tokenizer: None: the model has none.
        place: where to and how.
        console: shows the progress, if it is a terminal.
        source: of the model.

    Returns:
        What was written, as labels and texts.

    Raises:
        ConfigError: the weights are quantized and the target needs a dtype.
        InputError: a tensor is damaged, or overflows in the dtype.
        StorageError: the disk is full, or gave back something else than was written.
    """
    checkpoint, gguf = _prepared(checkpoint, place), None
    if place.format == "gguf":
        gguf = export_gguf.prepare(checkpoint, tokenizer, place, source)
        checkpoint = gguf.checkpoint
    planned = checkpoint if place.quantization is None else quantize_checkpoint(checkpoint, place.quantization)
    num_bytes = sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in planned.tensors.values())
    _require_space(place.folder, num_bytes if gguf is None else gguf.plan.size)
    with formats.writing(place.folder) as draft:  # a folder that cannot be written is told before minutes of rounding
        checkpoint = fit_checkpoint(checkpoint, place.quantization)
        started = time.monotonic()
        digests: dict[str, bytes] = {}
        with _bar(console) as bar:
            task = bar.add_task("writing", total=num_bytes)
            tensors = {
                path: _watched(path, tensor, digests, lambda size: bar.advance(task, size))
                for path, tensor in checkpoint.tensors.items()
            }
            told = {}
            if gguf is None:
                _write_files(draft, checkpoint, tensors, tokenizer, place)
            else:
                told = export_gguf.write(draft, gguf, tensors, tokenizer, source)
            task = bar.add_task("checking", total=num_bytes)
            _check(draft, gguf, checkpoint, digests, lambda size: bar.advance(task, size))
        types = _dtypes(checkpoint) if gguf is None else gguf.types
        card = export_card.make(source, place, types, None if gguf is None else gguf.file)
        model_card.write_card(draft, card, place.folder.name)
        file_sizes = [path.stat().st_size for path in draft.rglob("*") if path.is_file()]
    seconds = time.monotonic() - started
    return {
        "folder": str(place.folder),
        "format": _FORMAT_NAMES[place.format],
        "weights": _weights(checkpoint, gguf),
        "files": f"{len(file_sizes)}, {_gib(sum(file_sizes))} in {seconds:.1f} s ({_gib(num_bytes / seconds)}/s)",
        "tokenizer": "none" if tokenizer is None else f"{tokenizer.vocabulary_size} tokens",
        "chat template": "yes" if tokenizer is not None and tokenizer.chat_template is not None else "none",
        **told,
    }


def next_command(place: Target, tokenizer) -> str:
    """What to try with a model that was written: a conversation if it was made for one, or else a text."""
    folder = next(place.folder.glob("*.gguf"), place.folder)
    if tokenizer is not None and tokenizer.chat_template is not None:
        return shlex.join(["llama-exp", "chat", show_path(folder)])
    return shlex.join(["llama-exp", "generate", show_path(folder), "--prompt", "The"])


def show(rows: Mapping[str, str], console: Console) -> None:
    """Prints aligned labels and texts, a line each however long, so that a command can be copied."""
    width = max(len(label) for label in rows)
    for label, text in rows.items():
        console.print(f"{label:<{width}}  {printable(text)}", highlight=False, markup=False, soft_wrap=True)


def _prepared(checkpoint: Checkpoint, place: Target) -> Checkpoint:
    """The checkpoint as it will be written: in floating point where it must be, cast."""
    if checkpoint.quantization is not None and place.dtype is None and place.format != "keras_hub":
        what = "the weights are quantized, in a way that this format does not have"
        types = "bfloat16, or Q8_0," if place.format == "gguf" else "bfloat16"
        action = f"give --dtype {types} to turn them into numbers again, or --format keras_hub to keep them"
        raise ConfigError(Problem(what, "--dtype", f"none, the model is {checkpoint.quantization.mode}", action))
    if place.dtype is None:
        return checkpoint
    if checkpoint.quantization is not None:
        checkpoint = dequantize_checkpoint(checkpoint)
    if place.dtype not in DTYPES:  # blocks are made of what the weights are
        return checkpoint
    dtype = DTYPES[place.dtype]
    tensors = {path: _cast(tensor, dtype) for path, tensor in checkpoint.tensors.items()}
    return dataclasses.replace(checkpoint, tensors=tensors)


def _cast(tensor: Tensor, dtype: np.dtype) -> Tensor:
    return dataclasses.replace(tensor, dtype=dtype, read=lambda wanted: tensor.read(wanted or dtype))


def _watched(path: str, tensor: Tensor, digests: dict[str, bytes], advance) -> Tensor:
    """The same tensor, whose values are hashed when it is read."""

    def read(dtype):
        values = tensor.read(dtype or tensor.dtype)
        digests[path] = _digest(values)
        advance(values.nbytes)
        return values

    return dataclasses.replace(tensor, read=read)


def _digest(values: np.ndarray) -> bytes:
    digest = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
    digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.digest()


def _write_files(draft: Path, checkpoint: Checkpoint, tensors: dict[str, Tensor], tokenizer, place: Target) -> None:
    """The tokenizer first: KerasHub's name of the model depends on it."""
    max_shard_bytes = int(place.max_shard_gib * 2**30)
    if place.format == "keras_hub":
        if tokenizer is not None:
            tokenizer.save(draft)
        options = {"max_shard_bytes": max_shard_bytes, "context_length": checkpoint.context_length}
        keras_hub.write(draft, checkpoint.config, tensors, checkpoint.quantization, **options)
        return
    length = checkpoint.context_length
    notes = {} if length is None else {"max_position_embeddings": length}
    if tokenizer is not None:
        tokenizer.save_hugging_face(draft)
        notes |= {f"{name}_token_id": getattr(tokenizer, f"{name}_id") for name in ("bos", "eos", "pad")}
    hugging_face.write(draft, checkpoint.config, tensors, max_shard_bytes, notes=notes)


def _check(
    draft: Path, gguf: export_gguf.Prepared | None, checkpoint: Checkpoint, digests: Mapping[str, bytes], advance
) -> None:
    """Fails unless the draft holds exactly what was written; what a GGUF file has in blocks, its digest has shown."""
    exact = set(checkpoint.tensors) if gguf is None else gguf.exact
    with formats.open_checkpoint(draft if gguf is None else draft / gguf.file) as written:
        stated = {key: value for key, value in checkpoint.config.items() if key != "dropout"}
        found = written.config | {"context_length": written.context_length}
        if checkpoint.context_length is not None:
            stated["context_length"] = checkpoint.context_length
        problems = [
            Problem("the file says something else than was written", str(draft), f"{key}={found[key]}", str(value))
            for key, value in stated.items()
            if key not in written.doubtful and found[key] != value
        ]
        if written.quantization != checkpoint.quantization:
            what, stored = "the file says something else than was written", describe(written.quantization)
            problems.append(Problem(what, str(draft), stored, describe(checkpoint.quantization)))
        for path, tensor in written.tensors.items():
            values = tensor.read(None)
            if path in exact and _digest(values) != digests.get(path):
                what = "what was read back is not what was written"
                problems.append(Problem(what, tensor.origin, path, "check the disk and its memory, then try again"))
            advance(values.nbytes)
    if problems:
        raise StorageError(*problems)


def _require_space(folder: Path, num_bytes: int) -> None:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        found = f"{_gib(free)} free, {_gib(num_bytes)} needed"
        raise StorageError(Problem("the disk is too full", str(folder), found, "free space, or choose another disk"))


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    return Progress(
        *columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )


def _weights(checkpoint: Checkpoint, gguf: export_gguf.Prepared | None) -> str:
    if gguf is None:
        return f"{len(checkpoint.tensors)} tensors, {_dtypes(checkpoint)}, every one read back and equal"
    return f"{len(checkpoint.tensors)} tensors, {gguf.types}, the file read back and equal"


def _dtypes(checkpoint: Checkpoint) -> str:
    return ", ".join(sorted({str(tensor.dtype) for tensor in checkpoint.tensors.values()}))


def _gib(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**27 else f"{size / 2**20:,.2f} MiB"
