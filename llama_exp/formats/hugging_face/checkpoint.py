"""Llama checkpoints in Hugging Face's format, in and out.

config.json: the architecture (`hugging_face_config`). model.safetensors: the weights; or shards, and
model.safetensors.index.json, which says what tensor is in which. Kernels are stored (O, I) there and (I, O) here.
Weights in Python pickles (.bin, .pth), which run code when they are opened, are refused by name.

Shape letters: D hidden_dim, H head_dim, I inputs, O outputs of a linear layer, V vocabulary.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from llama_exp.errors import InputError
from llama_exp.files.json_file import inside, names_in, read_json
from llama_exp.formats.checkpoint import Checkpoint, Tensor
from llama_exp.formats.hugging_face.config import CONFIG_FILE, config_document, read_config
from llama_exp.formats.hugging_face.tensor_checks import (
    describe_names,
    require_equal,
    require_fit,
    require_layers,
    shorten_names,
)
from llama_exp.formats.hugging_face.tensor_names import EMBEDDINGS_NAME, OUTPUT_NAME, Place, layout
from llama_exp.formats.safetensors_file import StoredTensor, open_file, write_file
from llama_exp.formats.shards import split_into_shards

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
GENERATION_FILE = "generation_config.json"
MAX_INDEX_BYTES = 16 << 20  # that of the largest Llama has 0.1 MB
SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")
NUMBERED_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
PICKLES = (".bin", ".pth", ".pt", ".ckpt")


def read_architecture(folder: Path) -> dict:
    """Constructor arguments of the backbone from the folder's `config.json`; see `hugging_face_config.read_config`."""
    return read_config(Path(folder)).config


def read_context_length(folder: Path) -> int | None:
    """Tokens that the model is meant for, from the folder's `config.json`."""
    return read_config(Path(folder)).context_length


def read_quantization(folder: Path) -> None:
    """None: what this format stores in small types is refused."""


@contextlib.contextmanager
def open_checkpoint(folder: Path) -> Iterator[Checkpoint]:
    """A checkpoint whose files fit each other and the configuration; open as long as the context.

    Raises:
        InputError: a file is missing, damaged or refused; tensors are missing, unexpected or unfit (all together).
    """
    folder = Path(folder)
    config, context_length = read_config(folder)
    with contextlib.ExitStack() as files:
        stored = _open_tensors(folder, files)
        require_layers(folder, config, stored)
        places = layout(config)
        require_fit(folder, config, stored, places)
        if config["tie_word_embeddings"] and OUTPUT_NAME in stored:
            require_equal(stored[OUTPUT_NAME], stored[EMBEDDINGS_NAME])
        tensors = {path: _tensor(stored[place.name], place.transposed) for path, place in places.items()}
        yield Checkpoint(folder, "hugging_face", config, tensors, context_length=context_length)


def write(
    folder: Path,
    config: Mapping,
    tensors: Mapping[str, Tensor],
    max_shard_bytes: int | None = None,
    dtype: np.dtype | None = None,
    notes: Mapping | None = None,
    generation_config: Mapping | None = None,
) -> None:
    """Writes a checkpoint that transformers and `open_checkpoint` read, holding one tensor in memory at a time.

    Args:
        folder: exists, and is this function's alone (`formats.writing`).
        config: all of `architecture.CONFIG_KEYS`.
        tensors: exactly the variables of the model of `config`, floating-point.
        max_shard_bytes: larger weights are split into files of at most this size; None: one file.
        dtype: to store all tensors in; None: each as it is.
        notes: token ids and context length for config.json; see `hugging_face_config.config_document`.
        generation_config: content of generation_config.json; None: no such file.

    Raises:
        InputError: a source file is damaged, a value overflows in `dtype`, or the format cannot state the architecture.
        OSError: the folder cannot be written.
        ValueError: `tensors` are not those of `config`.
    """
    folder, places = Path(folder), layout(config)
    if set(tensors) != set(places) or any(tensors[path].shape != place.our_shape for path, place in places.items()):
        differing = sorted(set(tensors) ^ set(places)) or "their shapes differ"
        raise ValueError(f"tensors are not those of the model of config: {differing}. Dequantize and merge them first.")
    turned = {place.name: _turned(tensors[path], place, dtype) for path, place in places.items()}
    dtypes = {tensor.dtype for tensor in turned.values()}
    document = config_document(config, _common(dtypes), notes)
    _write_weights(folder, turned, max_shard_bytes)
    _write_json(folder / CONFIG_FILE, document)
    if generation_config is not None:
        _write_json(folder / GENERATION_FILE, generation_config)


def _tensor(stored: StoredTensor, transposed: bool) -> Tensor:
    shape = stored.shape[::-1] if transposed else stored.shape
    return Tensor(shape, stored.dtype, stored.origin, lambda dtype: stored.read(dtype, transposed))


def _turned(tensor: Tensor, place: Place, dtype: np.dtype | None) -> Tensor:
    def read(_):
        values = tensor.read(dtype)
        return values.T if place.transposed else values

    return Tensor(place.shape, tensor.dtype if dtype is None else np.dtype(dtype), tensor.origin, read)


def _open_tensors(folder: Path, files: contextlib.ExitStack) -> dict[str, StoredTensor]:
    """Every tensor of the folder's files by name; the files stay open until `files` closes."""
    weight_map = _weight_map(folder)
    if weight_map is None:
        return files.enter_context(open_file(inside(folder, WEIGHTS_FILE))).tensors
    stored: dict[str, StoredTensor] = {}
    problems = []
    for shard in sorted(set(weight_map.values())):
        tensors = files.enter_context(open_file(inside(folder, shard))).tensors
        meant = {name for name, file in weight_map.items() if file == shard}
        absent, extra = sorted(meant - set(tensors)), sorted(set(tensors) - meant)
        if absent:
            problems.append(
                describe_names(folder / shard, f"{len(absent)} tensors of the index are not in the shard", absent)
            )
        if extra:
            problems.append(
                describe_names(folder / shard, f"{len(extra)} tensors are not in this shard by the index", extra)
            )
        stored |= tensors
    if problems:
        raise InputError(*problems)
    return stored


def _weight_map(folder: Path) -> dict[str, str] | None:
    """The shard of every tensor by name; None if the weights are one file."""
    single, index = (os.path.lexists(folder / name) for name in (WEIGHTS_FILE, INDEX_FILE))
    if single and index:
        action = "remove the one that is not this model's"
        raise InputError.about(
            folder, f"the folder has both {WEIGHTS_FILE} and {INDEX_FILE}", "two sets of weights", action
        )
    if single:
        return None
    if not index:
        raise _no_weights(folder)
    path = inside(folder, INDEX_FILE)
    weight_map = read_json(path, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError.about(path, "the index has no weight_map", repr(weight_map)[:80])
    for shard in weight_map.values():
        if not isinstance(shard, str) or not SHARD_NAME.fullmatch(shard):
            what = "a shard's name is not that of a .safetensors file in the folder"
            raise InputError.about(path, what, repr(shard)[:80], "do not use this checkpoint")
    shards = set(weight_map.values())
    missing = sorted(shard for shard in shards if not os.path.lexists(folder / shard))
    if missing:
        raise InputError(describe_names(folder, f"{len(missing)} of {len(shards)} shards are missing", missing))
    unlisted = sorted(name for name in os.listdir(folder) if NUMBERED_SHARD.fullmatch(name) and name not in shards)
    if unlisted:
        raise InputError(describe_names(path, f"{len(unlisted)} shards of the folder are not in the index", unlisted))
    return weight_map


def _no_weights(folder: Path) -> InputError:
    pickles = sorted(name for name in os.listdir(folder) if name.endswith(PICKLES))
    if pickles:
        what = "the weights are Python pickles, which can run any code when they are opened"
        action = (
            "choose a repository with .safetensors files, or convert these where you trust them, with transformers: "
            f"LlamaForCausalLM.from_pretrained('{folder.name}').save_pretrained('<new folder>')"
        )
        return InputError.about(folder, what, shorten_names(pickles), action)
    return InputError.about(folder, f"the folder has neither {WEIGHTS_FILE} nor {INDEX_FILE}", names_in(folder))


def _common(dtypes: set[np.dtype]) -> str:
    """The name of the type that holds all of `dtypes` without loss."""
    if len(dtypes) == 1:
        return next(iter(dtypes)).name
    return "float64" if np.dtype(np.float64) in dtypes else "float32"


def _write_weights(folder: Path, tensors: dict[str, Tensor], max_shard_bytes: int | None) -> None:
    sizes = {name: math.prod(tensor.shape) * tensor.dtype.itemsize for name, tensor in tensors.items()}
    total_bytes = sum(sizes.values())
    metadata = {"format": "pt"}  # transformers 4 refuses files without
    if max_shard_bytes is None or total_bytes <= max_shard_bytes:
        write_file(folder / WEIGHTS_FILE, tensors, metadata)
        return
    shards = split_into_shards(sizes, max_shard_bytes)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        shard = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_file(folder / shard, {name: tensors[name] for name in names}, metadata)
        weight_map |= dict.fromkeys(names, shard)
    _write_json(folder / INDEX_FILE, {"metadata": {"total_size": total_bytes}, "weight_map": weight_map})


def _write_json(path: Path, document: Mapping) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
