"""The `model.weights.h5` of a KerasHub preset, whole or in shards <-> the variables of `LlamaBackbone`.

Keras names groups after classes and attributes, not after layers: decoder block 3 lies in
`layers/llama_transformer_decoder_3`, its query kernel in `_self_attention_layer/_query_dense/vars/0`. `layout` spells
this out; every tensor of a file must be in it and every variable must get its tensor.

The files may come from anywhere. Nothing is read before its name, shape and type are known to be right, no link
leaves the file, and no shard leaves the folder.

Shape letters: D hidden_dim, F intermediate_dim, N query heads, K key/value heads, H head_dim, V vocabulary.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import ml_dtypes
import numpy as np
from keras import ops

from llama_exp.errors import InputError, Problem
from llama_exp.formats.keras_hub_config import read_json

WEIGHTS_FILE = "model.weights.h5"
SHARDS_FILE = "model.weights.json"
SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.weights\.h5")
EMBEDDINGS = "layers/reversible_embedding/vars/0"
REVERSE_EMBEDDINGS = "layers/reversible_embedding/vars/1"
# Depth and number of groups of a real file are far below; hard links can make a small file endless.
MAX_DEPTH = 8
MAX_OBJECTS = 100_000
# deflate, shuffle, fletcher32, lzf. Others would make HDF5 load a plug-in from the machine.
BUILT_IN_FILTERS = frozenset({1, 2, 3, 32000})
NAMES_SHOWN = 5


class Tensor(NamedTuple):
    """Where one tensor of a file goes: our variable, the file's shape, and the layer's name in KerasHub."""

    variable: str
    file_shape: tuple[int, ...]
    layer_name: str


def layout(config: dict) -> dict[str, Tensor]:
    """Every tensor of a preset by its path in the HDF5 file.

    Args:
        config: constructor arguments of the backbone, `tie_word_embeddings` included.
    """
    V, D, F = config["vocabulary_size"], config["hidden_dim"], config["intermediate_dim"]
    N, K = config["num_query_heads"], config["num_key_value_heads"]
    H = D // N
    tensors = {EMBEDDINGS: Tensor("token_embedding/embeddings", (V, D), "token_embedding")}
    if not config["tie_word_embeddings"]:
        tensors[REVERSE_EMBEDDINGS] = Tensor("token_embedding/reverse_embeddings", (D, V), "token_embedding")
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
            tensors[f"{group}/{attribute}/vars/0"] = Tensor(variable, shape, layer.rpartition("/")[2])
    norm = "sequence_output_layernorm"
    tensors["layers/llama_layer_norm/vars/0"] = Tensor(f"{norm}/scale", (D,), norm)
    return tensors


def has_weights(folder: Path) -> bool:
    """Whether the folder holds weights at all (a preset may be fetched without)."""
    return (folder / WEIGHTS_FILE).exists() or (folder / SHARDS_FILE).exists()


def is_tied(folder: Path) -> bool:
    """Whether the files hold no output matrix of their own, so that logits use the embedding table."""
    with _open_tensors(folder) as datasets:
        return REVERSE_EMBEDDINGS not in datasets


def check_weights(folder: Path, config: dict) -> None:
    """Compares names, shapes and types of all tensors with what `config` needs; reads no tensor.

    Raises:
        InputError: they differ (all differences together), or a file is missing, broken or refused.
    """
    with _open_tensors(folder) as datasets:
        _check(folder, datasets, layout(config), config["tie_word_embeddings"])


def load_weights(backbone, folder: Path) -> None:
    """Fills every variable of `backbone` from the preset's files, one tensor in memory at a time.

    A tied model also accepts a file that stores the output matrix, if it is exactly the table transposed (KerasHub
    saves Llama 3.2 so). Float types are cast to those of the variables.

    Raises:
        InputError: as `check_weights`, before any variable changes; or a tensor is not finite.
    """
    config = backbone.get_config()
    tensors = layout(config)
    variables = {variable.path: variable for variable in backbone.variables}
    with _open_tensors(folder) as datasets:
        _check(folder, datasets, tensors, config["tie_word_embeddings"])
        if config["tie_word_embeddings"] and REVERSE_EMBEDDINGS in datasets:
            _require_transposed(datasets)
        for path, tensor in tensors.items():
            variable = variables[tensor.variable]
            with np.errstate(over="ignore"):  # what overflows is refused below, by name
                value = _read(datasets[path]).astype(_numpy_dtype(variable.dtype), copy=False)
            if not np.isfinite(value).all():
                raise _reject(datasets[path], "the tensor is not finite", f"as {variable.dtype}")
            variable.assign(value.reshape(variable.shape))


def save_weights(backbone, folder: Path, max_shard_gib: float | None) -> None:
    """Writes the backbone's variables as KerasHub does: one file, or shards if they exceed `max_shard_gib`."""
    config = backbone.get_config()
    variables = {variable.path: variable for variable in backbone.variables}
    groups: dict[str, list[tuple[str, Tensor]]] = {}
    for path, tensor in layout(config).items():
        groups.setdefault(path.rpartition("/")[0], []).append((path, tensor))
    sizes = {group: sum(_num_bytes(variables[t.variable]) for _, t in members) for group, members in groups.items()}
    total_bytes = sum(sizes.values())
    if max_shard_gib is None or total_bytes <= max_shard_gib * 2**30:
        _write_file(folder / WEIGHTS_FILE, groups, groups, variables)
        return
    weight_map = {}
    for index, names in enumerate(_shards(sizes, max_shard_gib * 2**30)):
        file = f"model_{index:05}.weights.h5"
        _write_file(folder / file, groups, names, variables)
        weight_map |= {f"/{name}": file for name in names}
    document = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (folder / SHARDS_FILE).write_text(json.dumps(document, indent=4), encoding="utf-8")


def _shards(sizes: dict[str, int], max_bytes: float) -> list[list[str]]:
    """Groups in order, as many into a shard as fit; a group that fits nowhere has a shard of its own."""
    shards, filled = [[]], 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _write_file(path: Path, groups: dict, names, variables: dict) -> None:
    with h5py.File(path, "w") as file:
        for name in names:
            group = file.create_group(name)
            group.attrs["name"] = groups[name][0][1].layer_name
            for tensor_path, tensor in groups[name]:
                value = np.asarray(ops.convert_to_numpy(variables[tensor.variable].value)).reshape(tensor.file_shape)
                dataset = group.create_dataset(tensor_path.rpartition("/")[2], data=value)
                if value.dtype == ml_dtypes.bfloat16:
                    dataset.attrs["dtype"] = "bfloat16"  # HDF5 knows only "two bytes"


@contextlib.contextmanager
def _open_tensors(folder: Path) -> Iterator[dict[str, h5py.Dataset]]:
    """All data sets of a preset's files by path, with the files open."""
    datasets: dict[str, h5py.Dataset] = {}
    with contextlib.ExitStack() as stack:
        for name in _weight_files(folder):
            with _broken_file(str(name)):
                file = stack.enter_context(h5py.File(name, "r"))
                for path, dataset in _walk(file, "", [0]):
                    if path in datasets:
                        raise _reject(dataset, "the tensor is in two files", Path(datasets[path].file.filename).name)
                    datasets[path] = dataset
        yield datasets


@contextlib.contextmanager
def _broken_file(where: str) -> Iterator[None]:
    """Turns the errors of h5py about a file into InputError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        found = " ".join(str(error).split())[:200]
        raise InputError(
            Problem("the weight file cannot be read", where, found, "download or export the preset again")
        ) from error


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS_FILE).exists():
        return [folder / WEIGHTS_FILE]
    index = folder / SHARDS_FILE
    action = "give the folder of a complete KerasHub preset, or preset.load_weights=false"
    if not index.exists():
        what = f"the preset has neither {WEIGHTS_FILE} nor {SHARDS_FILE}"
        raise InputError(Problem(what, str(folder), "no weights", action))
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(Problem("the index of shards has no weight_map", str(index), repr(weight_map)[:80], action))
    names = [name for entry in weight_map.values() for name in (entry if isinstance(entry, list) else [entry])]
    for name in names:
        if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
            what = "a shard's name is not that of a file in the preset's folder"
            raise InputError(Problem(what, str(index), repr(name)[:80], "do not use this preset"))
        if not (folder / name).is_file():
            raise InputError(Problem("a shard is missing", str(folder), name, "download the preset again"))
    return [folder / name for name in sorted(set(names))]


def _walk(group: h5py.Group, prefix: str, num_visited: list[int]) -> Iterator[tuple[str, h5py.Dataset]]:
    for name in group:
        path = f"{prefix}{name}"
        num_visited[0] += 1
        if path.count("/") > MAX_DEPTH or num_visited[0] > MAX_OBJECTS:
            raise _reject(group, "the file is not laid out like weights", f"group {path[:80]}")
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise _reject(group, "links out of a weight file are refused", f"{type(link).__name__} {path[:80]}")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _walk(item, f"{path}/", num_visited)
        elif isinstance(item, h5py.Dataset):
            yield path, item
        else:
            raise _reject(group, "the file is not laid out like weights", f"{type(item).__name__} {path[:80]}")


def _check(folder: Path, datasets: dict, tensors: dict[str, Tensor], tied: bool) -> None:
    unexpected = [path for path in datasets if path not in tensors and not (tied and path == REVERSE_EMBEDDINGS)]
    missing = [f"{path} ({tensor.variable})" for path, tensor in tensors.items() if path not in datasets]
    shapes = dict.fromkeys(datasets) | {path: tensor.file_shape for path, tensor in tensors.items()}
    if tied:
        shapes[REVERSE_EMBEDDINGS] = tensors[EMBEDDINGS].file_shape[::-1]
    with _broken_file(str(folder)):
        unfit = [
            f"{path}: {reason}"
            for path, dataset in datasets.items()
            if path not in unexpected and (reason := _unfit(dataset, shapes[path]))
        ]
    action = "check that the model's configuration is the preset's, or download the preset again"
    problems = [
        Problem(what, str(folder), "; ".join(names[:NAMES_SHOWN]) + (" ..." if names[NAMES_SHOWN:] else ""), action)
        for what, names in (
            (f"{len(missing)} tensors are missing", missing),
            (f"{len(unexpected)} tensors are not the model's", unexpected),
            (f"{len(unfit)} tensors do not fit", unfit),
        )
        if names
    ]
    if problems:
        raise InputError(*problems)


def _unfit(dataset: h5py.Dataset, shape: tuple[int, ...]) -> str | None:
    """Why a data set cannot be the tensor of `shape`, or None; looks at its header only."""
    if dataset.shape != shape:
        return f"shape {dataset.shape} instead of {shape}"
    if dataset.dtype.kind in "iu":
        return f"{dataset.dtype} (quantized presets are not supported yet)"
    if not _is_bfloat16(dataset) and (dataset.dtype.kind != "f" or dataset.dtype.itemsize not in (2, 4, 8)):
        return f"type {dataset.dtype} instead of a float type"
    if dataset.external or dataset.is_virtual:
        return "its values lie in another file"
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
    if not filters <= BUILT_IN_FILTERS:
        return f"packed with HDF5 filters {sorted(filters - BUILT_IN_FILTERS)}"
    if dataset.chunks is None:
        complete = dataset.id.get_storage_size() == dataset.nbytes
    else:
        num_chunks = math.prod(-(-size // chunk) for size, chunk in zip(shape, dataset.chunks, strict=True))
        complete = dataset.id.get_num_chunks() == num_chunks
    # HDF5 would fill the gap with zeros and say nothing.
    return None if complete else "the file does not hold all of its values"


def _require_transposed(datasets: dict) -> None:
    if not np.array_equal(_read(datasets[REVERSE_EMBEDDINGS]), _read(datasets[EMBEDDINGS]).T):
        what = "the output matrix is not the embedding table, so the embeddings cannot be tied"
        raise _reject(datasets[REVERSE_EMBEDDINGS], what, "tie_word_embeddings=true")


def _read(dataset: h5py.Dataset) -> np.ndarray:
    with _broken_file(f"{dataset.file.filename}: {dataset.name}"):
        value = dataset[()]
    return value.view(ml_dtypes.bfloat16) if _is_bfloat16(dataset) else value


def _is_bfloat16(dataset: h5py.Dataset) -> bool:
    return dataset.dtype == np.dtype("V2") and dataset.attrs.get("dtype") == "bfloat16"


def _numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def _num_bytes(variable) -> int:
    return math.prod(variable.shape) * _numpy_dtype(variable.dtype).itemsize


def _reject(item: h5py.HLObject, what: str, found: str) -> InputError:
    where = f"{item.file.filename}: {item.name}"
    return InputError(Problem(what, where, found, "do not use this file; download or export the preset again"))
