"""KerasHub's `.lora.h5` (`backbone.save_lora_weights`) as adapters of linear layers.

    lora/vars/rank                     ()
    lora/11/vars/lora_kernel_a         (D, N, r)       layer 11 is the first block's query
    lora/11/vars/lora_kernel_b         (r, H)

Layers are numbered, not named: `path_of` knows which one a number means. Query, key and value of KerasHub are
`EinsumDense` layers, of which Keras factorizes only the last axis: every head has an A of its own, and one B serves
them all. That is exactly the adapter whose A has those of all heads side by side, and whose B repeats theirs along the
diagonal,

    A (D, N, r) -> (D, N*r)        B (r, H) -> diag(B, ..., B) (N*r, N*H)

so that its rank is N*r (K*r for key and value). The file does not store alpha; KerasHub leaves it at Keras' default,
which is the rank, so that the scale is 1.

Files may come from anywhere. Keras writes plain contiguous tensors; whatever else HDF5 can do (links, chunks, filters,
values in other files) is refused.

Shape letters: D hidden_dim, F intermediate_dim, N query heads, K key/value heads, H head_dim, r rank in the file,
I inputs, O outputs, R rank.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np

from llama_exp.architecture import linear_shapes
from llama_exp.formats.adapter import Adapter, check_fit, listed, rejected
from llama_exp.formats.json_file import open_regular
from llama_exp.formats.raw import is_finite

A, B = "lora_kernel_a", "lora_kernel_b"
RANK = "lora/vars/rank"
TENSOR = re.compile(r"lora/(0|[1-9]\d{0,8})/vars/(lora_kernel_[ab])")
PER_HEAD = ("self_attention/query", "self_attention/key", "self_attention/value")
# Keras lists a layer before its own layers, and those from the last made to the first. Only layers with weights count.
BEFORE_BLOCKS = ("token_embedding",)
BLOCK = (
    "",  # the block itself
    "feedforward_layernorm",
    "feedforward_output_dense",
    "feedforward_gate_dense",
    "feedforward_intermediate_dense",
    "self_attention_layernorm",
    "self_attention",
    "self_attention/attention_output",
    "self_attention/value",
    "self_attention/key",
    "self_attention/query",
)
AFTER_BLOCKS = ("sequence_output_layernorm",)
MAX_DEPTH = 4
# A model of 1000 blocks has 7000 adapters: 35001 names.
MAX_OBJECTS = 40_000
ACTION = "use a file of save_lora_weights that was made for this model"


def path_of(index: int, num_layers: int) -> str | None:
    """The layer that an index of the file means in a model of `num_layers` blocks; None: it has no such layer."""
    block, place = divmod(index - len(BEFORE_BLOCKS), len(BLOCK))
    if index < len(BEFORE_BLOCKS):
        return BEFORE_BLOCKS[index]
    if block < num_layers:
        return f"transformer_layer_{block}/{BLOCK[place]}".rstrip("/")
    return AFTER_BLOCKS[place] if block == num_layers and place < len(AFTER_BLOCKS) else None


@contextlib.contextmanager
def open_adapter(path: Path, config: Mapping) -> Iterator[Adapter]:
    """A `.lora.h5` file, checked against the model of `config`; see `adapter.open_adapter`."""
    with open_regular(path) as source, contextlib.ExitStack() as stack:
        with _readable(path):
            file = stack.enter_context(h5py.File(source, "r"))
            datasets = _datasets(path, file)
            _require_plain(path, datasets, os.fstat(source.fileno()).st_size)
            adapter = _adapter(path, datasets, config)
        yield adapter


def _adapter(path: Path, datasets: dict[str, h5py.Dataset], config: Mapping) -> Adapter:
    rank = _rank(path, datasets.pop(RANK, None))
    matrices = _by_layer(path, datasets, config)
    shapes = {name: {part: tensor.shape for part, tensor in pair.items()} for name, pair in matrices.items()}
    check_fit(path, shapes, {name: _file_shapes(name, rank, config) for name in matrices})
    ranks = {name: rank * _num_heads(name, config) for name in matrices}

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        a, b = (_read(path, matrices[name][part]) for part in (A, B))
        return a.reshape(-1, ranks[name]), np.kron(np.eye(_num_heads(name, config), dtype=np.float32), b)

    return Adapter(
        path=path,
        format="keras_hub",
        rank=rank,
        alpha=float(rank),
        dropout=0.0,
        use_rslora=False,
        ranks=ranks,
        alphas={name: float(ranks[name]) for name in ranks},
        base=None,
        read=read,
    )


def _num_heads(name: str, config: Mapping) -> int:
    """How many copies of the file's B the adapter of a layer needs."""
    layer = name.partition("/")[2]
    if layer not in PER_HEAD:
        return 1
    return config["num_query_heads" if layer == "self_attention/query" else "num_key_value_heads"]


def _file_shapes(name: str, rank: int, config: Mapping) -> dict[str, tuple[int, ...]]:
    """Shapes of A and B in the file."""
    num_inputs, num_outputs = linear_shapes(config)[name]
    layer = name.partition("/")[2]
    if layer in PER_HEAD:
        num_heads = _num_heads(name, config)
        return {A: (num_inputs, num_heads, rank), B: (rank, num_outputs // num_heads)}
    if layer == "self_attention/attention_output":
        num_heads = config["num_query_heads"]
        return {A: (num_heads, num_inputs // num_heads, rank), B: (rank, num_outputs)}
    return {A: (num_inputs, rank), B: (rank, num_outputs)}


def _by_layer(path: Path, datasets: dict[str, h5py.Dataset], config: Mapping) -> dict[str, dict[str, h5py.Dataset]]:
    """A and B by path of their linear layer, in the model's order."""
    matrices: dict[str, dict[str, h5py.Dataset]] = {}
    linears, num_layers = linear_shapes(config), config["num_layers"]
    foreign, beyond, other = [], [], []
    for name, dataset in datasets.items():
        match = TENSOR.fullmatch(name)
        if match is None:
            foreign.append(name)
            continue
        layer = path_of(int(match[1]), num_layers)
        if layer is None:
            beyond.append(f"lora/{match[1]}")
        elif layer not in linears:
            other.append(f"lora/{match[1]}, which is {layer}")
        else:
            matrices.setdefault(layer, {})[match[2]] = dataset
    if foreign:
        raise rejected(path, "the file holds tensors that are no adapters", listed(foreign), ACTION)
    if beyond:
        last = len(BEFORE_BLOCKS) + num_layers * len(BLOCK) + len(AFTER_BLOCKS) - 1
        action = f"use it with the model it was made for; this one has {num_layers} blocks, layers 0 to {last}"
        raise rejected(
            path, "the file numbers layers that the model lacks", listed(list(dict.fromkeys(beyond))), action
        )
    if other:
        action = "use it with the model it was made for; there the number means another layer"
        raise rejected(path, "the file adapts layers that are not linear", listed(list(dict.fromkeys(other))), action)
    if not matrices:
        raise rejected(path, "the file holds no adapter", "no group lora/<layer>", ACTION)
    return {name: matrices[name] for name in linears if name in matrices}


def _rank(path: Path, dataset: h5py.Dataset | None) -> int:
    if dataset is None or dataset.shape != () or dataset.dtype.kind not in "iu":
        found = "none" if dataset is None else f"{dataset.dtype} {dataset.shape}"
        raise rejected(path, f"the file has no whole number {RANK}", found, ACTION)
    rank = int(dataset[()])
    if rank < 1:
        raise rejected(path, "the rank is less than 1", f"{RANK} = {rank}", ACTION)
    return rank


def _datasets(path: Path, file: h5py.File) -> dict[str, h5py.Dataset]:
    """Every tensor by name, found without following a link or entering a group twice."""
    found: dict[str, h5py.Dataset] = {}
    addresses: set[int] = set()
    num_objects = 0
    groups: list[tuple[str, h5py.Group]] = [("", file)]
    while groups:
        prefix, group = groups.pop()
        for key in group:
            name, num_objects = f"{prefix}{key}", num_objects + 1
            if name.count("/") >= MAX_DEPTH or num_objects > MAX_OBJECTS:
                raise rejected(path, "the file is not laid out like adapters", f"group {name[:80]}", ACTION)
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                found_link = f"{type(link).__name__} {name[:80]}"
                raise rejected(path, "links are refused in a weight file", found_link, ACTION)
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if address in addresses or not isinstance(item, h5py.Group | h5py.Dataset):
                raise rejected(path, "the file is not laid out like adapters", f"{name[:80]} stands twice", ACTION)
            addresses.add(address)
            if isinstance(item, h5py.Group):
                groups.append((f"{name}/", item))
            else:
                found[name] = item
    return found


def _require_plain(path: Path, datasets: dict[str, h5py.Dataset], file_bytes: int) -> None:
    """From the headers alone: nothing is larger than the file, or lies elsewhere."""
    unfit = [f"{name}: {reason}" for name, dataset in datasets.items() if (reason := _unfit(name, dataset))]
    if unfit:
        raise rejected(path, "tensors are not stored as Keras does", listed(unfit), ACTION)
    num_bytes = sum(dataset.nbytes for dataset in datasets.values())
    if num_bytes > file_bytes:
        raise rejected(path, "the tensors are larger than their file", f"{num_bytes} of {file_bytes} bytes", ACTION)


def _unfit(name: str, dataset: h5py.Dataset) -> str | None:
    if dataset.external or dataset.is_virtual:
        return "its values lie in another file"
    if dataset.shape is None or dataset.chunks is not None or dataset.id.get_create_plist().get_nfilters():
        return "it is packed, or has no values"
    # HDF5 would fill a gap with zeros and say nothing.
    if dataset.id.get_storage_size() != dataset.nbytes:
        return "the file does not hold all of its values"
    is_float = dataset.dtype.kind == "f" and dataset.dtype.itemsize in (2, 4, 8)
    return None if name == RANK or is_float or _is_bfloat16(dataset) else f"type {dataset.dtype} is no float type"


def _is_bfloat16(dataset: h5py.Dataset) -> bool:
    return dataset.dtype == np.dtype("V2") and dataset.attrs.get("dtype") == "bfloat16"


def _read(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    with _readable(path):
        value = dataset[()]
    with np.errstate(over="ignore"):  # what overflows is refused below, by name
        value = (value.view(ml_dtypes.bfloat16) if _is_bfloat16(dataset) else value).astype(np.float32)
    if not is_finite(value):
        raise rejected(path, "a matrix is not finite", dataset.name, ACTION)
    return value


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns the errors of h5py about a file into InputError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
        found = " ".join(str(error).split())[:200]
        raise rejected(path, "the file cannot be read", found, "export it again") from error
