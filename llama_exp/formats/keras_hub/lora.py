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

Shape letters: D hidden_dim, F intermediate_dim, N query heads, K key/value heads, H head_dim, r rank in the file,
I inputs, O outputs, R rank.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from llama_exp.architecture import linear_shapes
from llama_exp.errors import InputError
from llama_exp.formats.adapter import Adapter, Matrices, check_fit, shorten_names
from llama_exp.formats.hdf5_file import (
    Stored,
    broken_file,
    describe_misfit,
    make_tensor,
    open_tensors,
    packed_too_tightly,
)

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
    with open_tensors(path) as stored:
        yield _adapter(path, stored, config)


def _adapter(path: Path, stored: dict[str, Stored], config: Mapping) -> Adapter:
    rank = _rank(path, stored.pop(RANK, None))
    matrices = _by_layer(path, stored, config)
    shapes = {name: _file_shapes(name, rank, config) for name in matrices}
    with broken_file(str(path)):
        found = {
            name: {part: item.dataset.shape or () for part, item in pair.items()} for name, pair in matrices.items()
        }
    check_fit(path, found, shapes)
    unfitting = [
        f"{item.origin}: {reason}"
        for name, pair in matrices.items()
        for part, item in pair.items()
        if (reason := describe_misfit(item, shapes[name][part]))
    ]
    if unfitting:
        raise InputError.about(path, "matrices are not stored as Keras does", shorten_names(unfitting), ACTION)
    if reason := packed_too_tightly(stored):
        raise InputError.about(path, "the file unpacks to far more than it is", reason, ACTION)
    ranks = {name: rank * _num_heads(name, config) for name in matrices}

    def read(name: str) -> Matrices:
        a, b = (make_tensor(matrices[name][part], shapes[name][part]).read(np.dtype(np.float32)) for part in (A, B))
        b_RO = np.kron(np.eye(_num_heads(name, config), dtype=np.float32), b)
        return Matrices(a.reshape(-1, ranks[name]), b_RO)

    return Adapter(
        path=path,
        format="keras_hub",
        rank=rank,
        alpha=float(rank),
        dropout=0.0,
        use_rslora=False,
        use_dora=False,
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


def _by_layer(path: Path, stored: Mapping[str, Stored], config: Mapping) -> dict[str, dict[str, Stored]]:
    """A and B by path of their linear layer, in the model's order."""
    matrices: dict[str, dict[str, Stored]] = {}
    linears, num_layers = linear_shapes(config), config["num_layers"]
    foreign, beyond, other = [], [], []
    for name, item in stored.items():
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
            matrices.setdefault(layer, {})[match[2]] = item
    if foreign:
        raise InputError.about(path, "the file holds tensors that are no adapters", shorten_names(foreign), ACTION)
    if beyond:
        last = len(BEFORE_BLOCKS) + num_layers * len(BLOCK) + len(AFTER_BLOCKS) - 1
        action = f"use it with the model it was made for; this one has {num_layers} blocks, layers 0 to {last}"
        raise InputError.about(
            path, "the file numbers layers that the model lacks", shorten_names(list(dict.fromkeys(beyond))), action
        )
    if other:
        action = "use it with the model it was made for; there the number means another layer"
        raise InputError.about(
            path, "the file adapts layers that are not linear", shorten_names(list(dict.fromkeys(other))), action
        )
    if not matrices:
        raise InputError.about(path, "the file holds no adapter", "no group lora/<layer>", ACTION)
    return {name: matrices[name] for name in linears if name in matrices}


def _rank(path: Path, item: Stored | None) -> int:
    if item is None:
        raise InputError.about(path, "the file states no rank", f"no {RANK}", ACTION)
    with broken_file(item.origin):
        dataset = item.dataset
        reason = describe_misfit(item, (), dataset.dtype) if dataset.dtype.kind in "iu" else f"type {dataset.dtype}"
        if reason:
            raise InputError.about(path, "the rank is not a whole number", f"{RANK}: {reason}", ACTION)
        rank = int(dataset[()])
    if rank < 1:
        raise InputError.about(path, "the rank is less than 1", f"{RANK} = {rank}", ACTION)
    return rank
