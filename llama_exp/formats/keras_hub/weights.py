"""The `model.weights.h5` of a KerasHub preset, whole or in shards <-> tensors by this project's names.

Keras names groups after classes and attributes, not after layers: decoder block 3 lies in
`layers/llama_transformer_decoder_3`, its query kernel in `_self_attention_layer/_query_dense/vars/0`. `layout` spells
this out; every tensor of a file must be in it and every variable must get its tensor.

The files may come from anywhere. Nothing is read before its name, shape and type are known to be right, and no shard
lies outside of the folder.

Shape letters: D hidden_dim, F intermediate_dim, N query heads, K key/value heads, H head_dim, V vocabulary.
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

from llama_exp import architecture
from llama_exp.errors import InputError, Problem
from llama_exp.files.json_file import inside, names_in, read_json
from llama_exp.formats.checkpoint import Tensor
from llama_exp.formats.hdf5_file import Stored, create_file, describe_misfit, open_tensors, packed_too_tightly
from llama_exp.formats.plain_arrays import BFLOAT16
from llama_exp.formats.shards import split_into_shards

WEIGHTS_FILE = "model.weights.h5"
SHARDS_FILE = "model.weights.json"
SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.weights\.h5")
EMBEDDINGS_GROUP = "layers/reversible_embedding"
EMBEDDINGS = f"{EMBEDDINGS_GROUP}/vars/0"
REVERSE_EMBEDDINGS = f"{EMBEDDINGS_GROUP}/vars/1"
MAX_INDEX_BYTES = 16 << 20  # it has an entry per layer
NAMES_SHOWN = 5


class FileTensor(NamedTuple):
    """Where one tensor of a file goes.

    variable: our path of it. file_shape: in the file. layer_name: of its layer in KerasHub. dtype: in the file; None:
    any floating-point type.
    """

    variable: str
    file_shape: tuple[int, ...]
    layer_name: str
    dtype: np.dtype | None = None


def layout(config: Mapping) -> dict[str, FileTensor]:
    """Every tensor of a preset with floating-point weights by its path in the HDF5 file.

    Args:
        config: constructor arguments of the backbone, `tie_word_embeddings` included.
    """
    V, D, F = config["vocabulary_size"], config["hidden_dim"], config["intermediate_dim"]
    N, K = config["num_query_heads"], config["num_key_value_heads"]
    H = D // N
    tensors = {EMBEDDINGS: FileTensor(architecture.EMBEDDINGS, (V, D), "token_embedding")}
    if not config["tie_word_embeddings"]:
        tensors[REVERSE_EMBEDDINGS] = FileTensor(architecture.REVERSE_EMBEDDINGS, (D, V), "token_embedding")
    block = {
        "_self_attention_layernorm": ("self_attention_layernorm", "scale", (D,)),
        "_self_attention_layer/_query_dense": ("self_attention/query", "kernel", (D, N, H)),
        "_self_attention_layer/_key_dense": ("self_attention/key", "kernel", (D, K, H)),
        "_self_attention_layer/_value_dense": ("self_attention/value", "kernel", (D, K, H)),
        "_self_attention_layer/_output_dense": ("self_attention/attention_output", "kernel", (N, H, D)),
        "_feedforward_layernorm": ("feedforward_layernorm", "scale", (D,)),
        "_feedforward_gate_dense": ("feedforward_gate_dense", "kernel", (D, F)),
        "_feedforward_intermediate_dense": ("feedforward_intermediate_dense", "kernel", (D, F)),
        "_feedforward_output_dense": ("feedforward_output_dense", "kernel", (F, D)),
    }
    for i in range(config["num_layers"]):
        group = "layers/llama_transformer_decoder" + (f"_{i}" if i else "")
        for attribute, (layer, weight, shape) in block.items():
            variable = f"transformer_layer_{i}/{layer}/{weight}"
            tensors[f"{group}/{attribute}/vars/0"] = FileTensor(variable, shape, layer.rpartition("/")[2])
    norm = architecture.FINAL_NORM.partition("/")[0]
    tensors["layers/llama_layer_norm/vars/0"] = FileTensor(architecture.FINAL_NORM, (D,), norm)
    return tensors


def has_weights(folder: Path) -> bool:
    """Whether the folder holds weights at all (a preset may be fetched without)."""
    return os.path.lexists(folder / WEIGHTS_FILE) or os.path.lexists(folder / SHARDS_FILE)


@contextlib.contextmanager
def open_stored(folder: Path, group: str | None = None) -> Iterator[dict[str, Stored]]:
    """All tensors of a preset's files by their path in them, with the files open; nothing of them is checked yet.

    Args:
        folder: the preset's.
        group: of HDF5; only the shards that the index names for it are opened and must be there. None: all.

    Raises:
        InputError: a file is missing, broken, or has links; a shard is not in the folder or not in the index.
    """
    stored: dict[str, Stored] = {}
    with contextlib.ExitStack() as stack:
        for path in _weight_files(folder, group):
            for name, item in stack.enter_context(open_tensors(path)).items():
                if name in stored:
                    action = "delete the file that is too much, or download the preset again"
                    raise InputError(Problem("a tensor is in two files", item.origin, stored[name].origin, action))
                stored[name] = item
        yield stored


def check_stored(folder: Path, stored: Mapping[str, Stored], layout: Mapping[str, FileTensor]) -> None:
    """Compares names, shapes and types of all tensors with `layout`; reads none.

    Raises:
        InputError: they differ (all differences together), or their values are not all in the file.
    """
    unexpected = [path for path in stored if path not in layout]
    missing = [f"{path} ({tensor.variable})" for path, tensor in layout.items() if path not in stored]
    unfitting = [
        f"{path}: {reason}"
        for path, tensor in layout.items()
        if path in stored and (reason := describe_misfit(stored[path], tensor.file_shape, tensor.dtype))
    ]
    if not unfitting and (reason := packed_too_tightly(stored)):
        unfitting.append(reason)
    action = "check that the model's configuration is the preset's, or download the preset again"
    problems = [
        Problem(what, str(folder), "; ".join(names[:NAMES_SHOWN]) + (" ..." if names[NAMES_SHOWN:] else ""), action)
        for what, names in (
            (f"{len(missing)} tensors are missing", missing),
            (f"{len(unexpected)} tensors are not the model's", unexpected),
            (f"{len(unfitting)} tensors do not fit", unfitting),
        )
        if names
    ]
    if problems:
        raise InputError(*problems)


def write_weights(
    folder: Path, layout: Mapping[str, FileTensor], tensors: Mapping[str, Tensor], max_shard_bytes: int | None
) -> None:
    """Writes tensors as Keras does, one in memory at a time: one file, or shards if they exceed `max_shard_bytes`.

    Args:
        folder: exists, without weights.
        layout: every tensor of the file by its path.
        tensors: by variable.
        max_shard_bytes: of tensors per file; a layer that is larger has a file of its own. None: one file.
    """
    groups: dict[str, list[tuple[str, FileTensor]]] = {}
    for path, tensor in layout.items():
        groups.setdefault(path.rpartition("/")[0], []).append((path, tensor))
    sizes = {group: sum(_num_bytes(tensors[t.variable]) for _, t in members) for group, members in groups.items()}
    total_bytes = sum(sizes.values())
    if max_shard_bytes is None or total_bytes <= max_shard_bytes:
        _write_file(folder / WEIGHTS_FILE, groups, tensors)
        return
    weight_map: dict[str, str] = {}
    for index, names in enumerate(split_into_shards(sizes, max_shard_bytes)):
        file = f"model_{index:05}.weights.h5"
        _write_file(folder / file, {name: groups[name] for name in names}, tensors)
        weight_map |= {f"/{name}": file for name in names}
    document = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (folder / SHARDS_FILE).write_text(json.dumps(document, indent=4), encoding="utf-8")


def _write_file(path: Path, groups: Mapping[str, list], tensors: Mapping[str, Tensor]) -> None:
    with create_file(path) as (file, require_written):
        for name, members in groups.items():
            group = file.create_group(name)
            group.attrs["name"] = members[0][1].layer_name
            for tensor_path, tensor in members:
                value = tensors[tensor.variable].read(None).reshape(tensor.file_shape)
                is_bfloat16 = value.dtype == BFLOAT16
                dtype = np.dtype("V2") if is_bfloat16 else value.dtype  # HDF5 knows only "two bytes"
                dataset = group.create_dataset(tensor_path.rpartition("/")[2], shape=value.shape, dtype=dtype)
                dataset.write_direct(value.view(dtype))
                if is_bfloat16:
                    dataset.attrs["dtype"] = "bfloat16"
                require_written()


def _weight_files(folder: Path, group: str | None) -> list[Path]:
    single, index = inside(folder, WEIGHTS_FILE), inside(folder, SHARDS_FILE)
    action = "give the folder of a complete KerasHub preset, or preset.load_weights=false"
    if not has_weights(folder):
        what = f"the preset has neither {WEIGHTS_FILE} nor {SHARDS_FILE}"
        raise InputError(Problem(what, str(folder), names_in(folder), action))
    if not os.path.lexists(index):
        return [single]
    weight_map = read_json(index, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(Problem("the index of shards has no weight_map", str(index), repr(weight_map)[:80], action))
    files = {key: entry if isinstance(entry, list) else [entry] for key, entry in weight_map.items()}
    names = [name for entry in files.values() for name in entry]
    for name in names:
        if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
            what = "a shard's name is not that of a file in the preset's folder"
            raise InputError(Problem(what, str(index), repr(name)[:80], "do not use this preset"))
    of_group = [name for key, entry in files.items() if f"{key}/".startswith(f"/{group}/") for name in entry]
    needed = sorted(set(of_group or names))
    for name in needed:
        if not os.path.lexists(folder / name):
            found = f"{name} (the folder holds: {names_in(folder)})"
            raise InputError(Problem("a shard is missing", str(folder), found, "download the preset again"))
    extra = sorted({path.name for path in folder.glob("model*.weights.h5")} - set(names))
    if extra:
        what, action = (
            "there are weights that the index does not name",
            f"delete them, or {SHARDS_FILE} with its shards",
        )
        raise InputError(Problem(what, str(index), ", ".join(extra[:NAMES_SHOWN]), action))
    return [inside(folder, name) for name in needed]


def _num_bytes(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
