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
from typing import NamedTuple

import numpy as np

from llama_exp.architecture import EMBEDDINGS, FINAL_NORM, REVERSE_EMBEDDINGS, variable_shapes
from llama_exp.errors import DOWNLOAD, InputError, Problem
from llama_exp.files.json_file import NAMES_SHOWN, inside, names_in, read_json
from llama_exp.formats.checkpoint import Checkpoint, Tensor
from llama_exp.formats.hugging_face.config import CONFIG_FILE, config_document, read_config
from llama_exp.formats.safetensors_file import StoredTensor, open_file, write_file
from llama_exp.formats.shards import split_into_shards

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
GENERATION_FILE = "generation_config.json"
MAX_INDEX_BYTES = 16 << 20  # that of the largest Llama has 0.1 MB
SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")
NUMBERED_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
PICKLES = (".bin", ".pth", ".pt", ".ckpt")
EMBEDDINGS_NAME = "model.embed_tokens.weight"
OUTPUT_NAME = "lm_head.weight"
OUTER_NAMES = {EMBEDDINGS: EMBEDDINGS_NAME, FINAL_NORM: "model.norm.weight", REVERSE_EMBEDDINGS: OUTPUT_NAME}
BLOCK_NAMES = {
    "self_attention_layernorm/scale": "input_layernorm",
    "self_attention/query/kernel": "self_attn.q_proj",
    "self_attention/key/kernel": "self_attn.k_proj",
    "self_attention/value/kernel": "self_attn.v_proj",
    "self_attention/attention_output/kernel": "self_attn.o_proj",
    "feedforward_layernorm/scale": "post_attention_layernorm",
    "feedforward_gate_dense/kernel": "mlp.gate_proj",
    "feedforward_intermediate_dense/kernel": "mlp.up_proj",
    "feedforward_output_dense/kernel": "mlp.down_proj",
}
BLOCK = re.compile(r"model\.layers\.(\d{1,6})\.")
COMPARED_BYTES = 8 << 20


class Place(NamedTuple):
    """Where one variable lies in a file: the tensor's name and shape there, and whether it is turned."""

    name: str
    shape: tuple[int, ...]
    transposed: bool


def read_architecture(folder: Path) -> dict:
    """Constructor arguments of the backbone from the folder's `config.json`; see `hugging_face_config.read_config`."""
    return read_config(Path(folder)).config


def layout(config: Mapping) -> dict[str, Place]:
    """Where every variable of a model lies, by path, in the order of the files."""
    places = {}
    for path, shape in variable_shapes(config).items():
        turned = path.endswith("/kernel") or path == REVERSE_EMBEDDINGS
        places[path] = Place(_stored_name(path), shape[::-1] if turned else shape, turned)
    return places


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
        _require_layers(folder, config, stored)
        places = layout(config)
        _require_fit(folder, config, stored, places)
        if config["tie_word_embeddings"] and OUTPUT_NAME in stored:
            _require_equal(stored[OUTPUT_NAME], stored[EMBEDDINGS_NAME])
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
    if set(tensors) != set(places) or any(tensors[path].shape != _our_shape(place) for path, place in places.items()):
        differing = sorted(set(tensors) ^ set(places)) or "their shapes differ"
        raise ValueError(f"tensors are not those of the model of config: {differing}. Dequantize and merge them first.")
    turned = {place.name: _turned(tensors[path], place, dtype) for path, place in places.items()}
    dtypes = {tensor.dtype for tensor in turned.values()}
    document = config_document(config, _common(dtypes), notes)
    _write_weights(folder, turned, max_shard_bytes)
    _write_json(folder / CONFIG_FILE, document)
    if generation_config is not None:
        _write_json(folder / GENERATION_FILE, generation_config)


def _stored_name(path: str) -> str:
    if path in OUTER_NAMES:
        return OUTER_NAMES[path]
    block, _, rest = path.partition("/")
    return f"model.layers.{block.rpartition('_')[2]}.{BLOCK_NAMES[rest]}.weight"


def _our_shape(place: Place) -> tuple[int, ...]:
    return place.shape[::-1] if place.transposed else place.shape


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
                _problem(folder / shard, f"{len(absent)} tensors of the index are not in the shard", absent)
            )
        if extra:
            problems.append(_problem(folder / shard, f"{len(extra)} tensors are not in this shard by the index", extra))
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
        raise InputError(_problem(folder, f"{len(missing)} of {len(shards)} shards are missing", missing))
    unlisted = sorted(name for name in os.listdir(folder) if NUMBERED_SHARD.fullmatch(name) and name not in shards)
    if unlisted:
        raise InputError(_problem(path, f"{len(unlisted)} shards of the folder are not in the index", unlisted))
    return weight_map


def _no_weights(folder: Path) -> InputError:
    pickles = sorted(name for name in os.listdir(folder) if name.endswith(PICKLES))
    if pickles:
        what = "the weights are Python pickles, which can run any code when they are opened"
        action = (
            "choose a repository with .safetensors files, or convert these where you trust them, with transformers: "
            f"LlamaForCausalLM.from_pretrained('{folder.name}').save_pretrained('<new folder>')"
        )
        return InputError.about(folder, what, _listed(pickles), action)
    return InputError.about(folder, f"the folder has neither {WEIGHTS_FILE} nor {INDEX_FILE}", names_in(folder))


def _require_layers(folder: Path, config: Mapping, stored: Mapping[str, StoredTensor]) -> None:
    """Compares the number of layers first: it is the clearest message, and bounds what is listed afterwards."""
    found = 1 + max((int(match[1]) for name in stored if (match := BLOCK.match(name))), default=-1)
    if found != config["num_layers"]:
        surplus = [name for name in stored if (match := BLOCK.match(name)) and int(match[1]) >= config["num_layers"]]
        names = f" ({_listed(surplus)} would not be used)" if surplus else ""
        action = "use the config.json that belongs to the weights, or download the checkpoint again"
        what = f"the file has {found} layers, the configuration {config['num_layers']}"
        raise InputError.about(folder, what, f"num_hidden_layers={config['num_layers']}{names}", action)


def _require_fit(folder: Path, config: Mapping, stored: Mapping[str, StoredTensor], places: dict[str, Place]) -> None:
    """Names and shapes of all tensors, before any is read."""
    shapes = {place.name: place.shape for place in places.values()}
    # Frequencies of rotary embedding, which old files store and nobody reads; and a tied model's table once more.
    half = (config["hidden_dim"] // config["num_query_heads"] // 2,)
    harmless: dict[str, tuple[int, ...]] = {
        f"model.layers.{i}.self_attn.rotary_emb.inv_freq": half for i in range(config["num_layers"])
    }
    harmless["model.rotary_emb.inv_freq"] = half
    if config["tie_word_embeddings"]:
        harmless[OUTPUT_NAME] = shapes[EMBEDDINGS_NAME]
    missing = [name for name in shapes if name not in stored]
    unexpected = [name for name in stored if name not in shapes and name not in harmless]
    unfit = [
        f"{name}: shape {stored[name].shape} instead of {shape}"
        for name, shape in (shapes | harmless).items()
        if name in stored and stored[name].shape != shape
    ]
    action = "use the config.json that belongs to the weights, or download the checkpoint again"
    if missing == [OUTPUT_NAME]:
        action = "if the model's embeddings are tied, set tie_word_embeddings to true in config.json"
    problems = [
        _problem(folder, f"{len(names)} tensors {what}", names, action)
        for what, names in (("are missing", missing), ("are not the model's", unexpected), ("do not fit", unfit))
        if names
    ]
    if problems:
        raise InputError(*problems)


def _require_equal(output: StoredTensor, table: StoredTensor) -> None:
    """Both (V, D); compared in slices."""
    rows = max(1, COMPARED_BYTES // (output.shape[1] * 8))
    for first in range(0, output.shape[0], rows):
        if not np.array_equal(_rows(output, first, rows), _rows(table, first, rows)):
            what = "the output matrix is not the embedding table, but the configuration ties them"
            action = "if they are two matrices, set tie_word_embeddings to false in config.json"
            raise InputError.about(output.origin, what, "tie_word_embeddings=true", action)


def _rows(stored: StoredTensor, first: int, count: int) -> np.ndarray:
    rows = min(count, stored.shape[0] - first)
    offset = stored.offset + first * stored.shape[1] * stored.dtype.itemsize
    return stored._replace(offset=offset, shape=(rows, stored.shape[1])).read()


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


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name)[1:-1][:120] for name in names[:NAMES_SHOWN])
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if names[NAMES_SHOWN:] else "")


def _problem(where: Path, what: str, names: list[str], action: str = DOWNLOAD) -> Problem:
    return Problem(what, str(where), _listed(names), action)
