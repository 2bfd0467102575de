"""Models in GGUF files, in: every tensor decoded from its blocks, turned and put in this project's order.

GGUF keeps kernels as (outputs, inputs) and, for Llama, the rows of query and key in pairs: the two components that
rotary embedding turns together lie side by side, where this project (as Hugging Face) keeps the halves of a head apart.

    row of a head in the file    0    1    2    3   ...            H = 4: file rows 0 1 2 3
    row of the head here         0   H/2   1  H/2+1 ...                  are rows   0 2 1 3 here

Shape letters: I inputs, O outputs of a linear layer, H head_dim, N heads; V vocabulary, D hidden_dim.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from llama_exp.architecture import EMBEDDINGS, FINAL_NORM, REVERSE_EMBEDDINGS, variable_shapes
from llama_exp.formats import plain_arrays as raw
from llama_exp.formats.checkpoint import Checkpoint, Tensor
from llama_exp.formats.gguf.config import OUTPUT, ROPE_FACTORS, TOKEN_EMBEDDINGS, context_length, read_config
from llama_exp.formats.gguf.file import GgufFile, StoredTensor, open_gguf

_BLOCK_VALUES = 2**18  # decoded at a time: what the cache holds as float32
_THREADED_VALUES = 2**20  # below, starting a thread costs more than it saves
_WHOLE_MODEL = {TOKEN_EMBEDDINGS: EMBEDDINGS, "output_norm.weight": FINAL_NORM, OUTPUT: REVERSE_EMBEDDINGS}
_LAYER = {
    "attn_norm": "self_attention_layernorm/scale",
    "attn_q": "self_attention/query/kernel",
    "attn_k": "self_attention/key/kernel",
    "attn_v": "self_attention/value/kernel",
    "attn_output": "self_attention/attention_output/kernel",
    "ffn_norm": "feedforward_layernorm/scale",
    "ffn_gate": "feedforward_gate_dense/kernel",
    "ffn_up": "feedforward_intermediate_dense/kernel",
    "ffn_down": "feedforward_output_dense/kernel",
}
IN_PAIRS = ("attn_q.weight", "attn_k.weight")


@contextlib.contextmanager
def open_checkpoint(path: str | Path) -> Iterator[Checkpoint]:
    """The model of a GGUF file, checked as a whole before any of it is read; open as long as the context.

    Blocks are decoded to floating point: the checkpoint has no quantization, and its tensors are float32 where the
    file has quantized blocks.

    Raises:
        InputError: not GGUF, damaged, not a Llama, or tensors that do not make up the model of its configuration.
    """
    with open_gguf(path) as file:
        config = read_config(file)
        head_dim = config["hidden_dim"] // config["num_query_heads"]
        tensors = {
            path: _tensor(file, file.tensors[name], path, shape, head_dim)
            for name, (path, shape) in _checked_names(file, config).items()
        }
        yield Checkpoint(file.path, "gguf", config, tensors, context_length=context_length(file))


def read_architecture(path: str | Path) -> dict:
    """Every constructor argument of the model of a GGUF file, in `architecture.CONFIG_KEYS`.

    Raises:
        InputError: as `open_checkpoint`, except for tensors that are missing or of another shape.
    """
    with open_gguf(path) as file:
        return read_config(file)


def read_context_length(path: str | Path) -> int | None:
    """Tokens that the model of a GGUF file is meant for; see `gguf.config.context_length`."""
    with open_gguf(path) as file:
        return context_length(file)


def read_quantization(path: str | Path) -> None:
    """None: blocks of GGUF become floating-point weights when they are read."""


def _checked_names(file: GgufFile, config: dict) -> dict[str, tuple[str, tuple[int, ...]]]:
    """GGUF's name -> path and shape of the variable; fails unless the file has exactly these tensors."""
    names = tensor_names(config)
    expected = {names[path]: (path, shape) for path, shape in variable_shapes(config).items()}
    if missing := [name for name in expected if name not in file.tensors]:
        file.reject(f"{len(missing)} tensors are missing", ", ".join(missing[:3]), "convert the model again")
    if unused := [name for name in file.tensors if name not in expected and name != ROPE_FACTORS]:
        action = "take a Llama without them (biases, experts and norms of query and key are not supported)"
        file.reject(f"{len(unused)} tensors have no place in the model", ", ".join(unused[:3]), action)
    for name, (path, shape) in expected.items():
        wanted = shape[::-1] if is_turned(path) else shape
        if file.tensors[name].shape != wanted:
            file.reject(f"tensor {name} has another shape", f"{file.tensors[name].shape}, expected {wanted}")
    return expected


def tensor_names(config: Mapping) -> dict[str, str]:
    """GGUF's name of every variable of the model of `config`, by path."""
    names = {path: name for name, path in _WHOLE_MODEL.items()}
    for i in range(config["num_layers"]):
        names |= {f"transformer_layer_{i}/{path}": f"blk.{i}.{name}.weight" for name, path in _LAYER.items()}
    return names


def is_turned(path: str) -> bool:
    """Whether GGUF keeps the variable as (outputs, inputs) where this project has (inputs, outputs)."""
    return path.endswith("/kernel") or path == REVERSE_EMBEDDINGS


def _tensor(file: GgufFile, stored: StoredTensor, path: str, shape: tuple[int, ...], head_dim: int) -> Tensor:
    pairs_of = head_dim if stored.name.endswith(IN_PAIRS) else None
    read = functools.partial(_read, file, stored, is_turned(path), pairs_of)
    return Tensor(shape, stored.block.dtype, f"{file.path}: {stored.name}", read)


def _read(file: GgufFile, stored: StoredTensor, turned: bool, pairs_of: int | None, dtype: np.dtype | None):
    """One tensor in this project's order, (I, O) if `turned`; `pairs_of`: head_dim, if its rows are in pairs."""
    columns = stored.shape[-1]
    num_rows = math.prod(stored.shape[:-1])
    out = raw.aligned_empty(stored.shape[::-1] if turned else stored.shape, dtype or stored.block.dtype)
    target = out if turned else out.reshape(num_rows, columns).T  # (columns, rows), a view
    step = pairs_of or 1  # a block holds whole heads
    step *= max(1, _BLOCK_VALUES // (columns * step))

    def fill(first: int, last: int) -> None:
        for start in range(first, last, step):
            _fill(file, stored, target, start, min(start + step, last), pairs_of)

    if out.size < _THREADED_VALUES:
        fill(0, num_rows)
        return out
    middle = -(-num_rows // (2 * step)) * step
    with ThreadPoolExecutor(2) as pool:
        for half in [pool.submit(fill, 0, middle), pool.submit(fill, middle, num_rows)]:
            half.result()
    return out


def _fill(file, stored, target, first, last, pairs_of):
    """Decodes rows `first` to `last` into those columns of `target`."""
    rows = file.read_rows(stored, first, last)
    if pairs_of:
        pairs = rows.reshape(-1, pairs_of // 2, 2, rows.shape[1])  # (N, H/2, 2, I)
        rows = pairs.swapaxes(1, 2).reshape(rows.shape)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below, by name
        values = rows.astype(target.dtype, copy=False)
    if not raw.is_finite(values):
        file.reject(f"tensor {stored.name} is not finite", f"NaN or infinity as {values.dtype}", "take another file")
    plain = np.dtype(f"u{values.itemsize}")  # NumPy moves numbers faster than types it does not know
    target.view(plain)[:, first:last] = values.view(plain).T
