"""Models into GGUF files: what `checkpoint.py` and `config.py` read, the other way round.

Matrices get the type that is asked for, with llama.cpp's own exceptions: norms are float32; a matrix whose rows are no
whole blocks is float16; where the others have 4 bits, the matrix that the logits come from has 8, because its errors
go straight into the choice of a token.

Shape letters: I inputs, O outputs of a linear layer, H head_dim, N heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llama_exp.architecture import EMBEDDINGS, REVERSE_EMBEDDINGS, ROPE_ADJUSTMENT, variable_shapes
from llama_exp.errors import InputError, Problem
from llama_exp.formats.checkpoint import Checkpoint, Tensor
from llama_exp.formats.gguf.blocks import BLOCK_TYPES
from llama_exp.formats.gguf.checkpoint import IN_PAIRS, is_turned, tensor_names
from llama_exp.formats.gguf.config import OWN_KEY, ROPE_FACTORS, decimal, llama_3_divisors
from llama_exp.formats.gguf.encoding import BLOCK_NAMES, KINDS, encode
from llama_exp.formats.gguf.writer import Outgoing, Value, write_gguf

_BLOCK_VALUES = 2**18  # encoded at a time: what the cache holds as float32
PLAIN_NAMES = {block.dtype.name: block.name for block in BLOCK_TYPES.values() if block.values == 1}
# llama.cpp's numbers of what most of a file is (enum llama_ftype).
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "BF16": 32}
# Stored as float32: what a file can say of a number of the config.
_ROUNDED = ("rope_max_wavelength", "rope_position_scaling_factor", "layer_norm_epsilon", *ROPE_ADJUSTMENT)


class Plan(NamedTuple):
    """What a file will hold.

    metadata: of the model, by key. types: name of the GGUF type of every variable, by path. fallbacks: paths of the
    matrices whose rows are no whole blocks. size: of the tensors, in bytes.
    """

    metadata: dict[str, Value]
    types: dict[str, str]
    fallbacks: list[str]
    size: int


def round_config(config: Mapping) -> dict:
    """The config as a GGUF file can say it: its fractions in float32."""
    rounded = {key: decimal(float(np.float32(config[key]))) for key in _ROUNDED if config[key] is not None}
    kept = {key: value for key, value in rounded.items() if value != config[key]}
    return {**config, **kept}


def plan(checkpoint: Checkpoint, type_: str | None, context_length: int, name: str) -> Plan:
    """What the file of a model will hold.

    Args:
        checkpoint: of floating-point weights.
        type_: a GGUF type for the matrices; None: the type that each has.
        context_length: tokens that the model is meant for.
        name: of the model, for people.
    """
    shapes = variable_shapes(checkpoint.config)
    own = {path: PLAIN_NAMES[tensor.dtype.name] for path, tensor in checkpoint.tensors.items()}
    wanted = own if type_ is None else dict.fromkeys(shapes, type_)
    last = EMBEDDINGS if checkpoint.config["tie_word_embeddings"] else REVERSE_EMBEDDINGS
    if type_ in BLOCK_NAMES:
        wanted[last] = "Q8_0"
    types, fallbacks = {}, []
    for path, shape in shapes.items():
        columns = shape[0] if is_turned(path) else shape[-1]
        if len(shape) == 1:
            types[path] = "F32"
        elif columns % BLOCK_TYPES[KINDS[wanted[path]]].values:
            types[path] = "F16"
            fallbacks.append(path)
        else:
            types[path] = wanted[path]
    outgoing = _outgoing(checkpoint, types).values()
    metadata = _metadata(checkpoint.config, context_length, name)
    metadata["general.file_type"] = FILE_TYPES[type_ or wanted[last]]
    if type_ in BLOCK_NAMES:
        metadata["general.quantization_version"] = 2  # of ggml's blocks: scales are float16
    return Plan(metadata, types, fallbacks, sum(tensor.size for tensor in outgoing))


def write(path: Path, checkpoint: Checkpoint, planned: Plan, tokenizer: Mapping[str, Value], hasher: Any) -> int:
    """Writes a model that llama.cpp and `checkpoint.open_checkpoint` read, one tensor in memory at a time.

    Args:
        path: of a file that does not exist.
        checkpoint: what `planned` was made of.
        planned: see `plan`.
        tokenizer: metadata of its tokenizer.
        hasher: of `hashlib`, is fed the file's bytes.

    Returns:
        The file's size in bytes.

    Raises:
        InputError: a source file is damaged, or a value is too large for its type.
        OSError: the file cannot be written, or exists.
    """
    return write_gguf(path, {**planned.metadata, **tokenizer}, _outgoing(checkpoint, planned.types), hasher)


def _metadata(config: Mapping, context_length: int, name: str) -> dict[str, Value]:
    head_dim = config["hidden_dim"] // config["num_query_heads"]
    metadata: dict[str, Value] = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": name,
        "llama.vocab_size": config["vocabulary_size"],
        "llama.context_length": context_length,
        "llama.embedding_length": config["hidden_dim"],
        "llama.block_count": config["num_layers"],
        "llama.feed_forward_length": config["intermediate_dim"],
        "llama.attention.head_count": config["num_query_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": float(config["layer_norm_epsilon"]),
        "llama.rope.freq_base": float(config["rope_max_wavelength"]),
        "llama.rope.dimension_count": head_dim,
    }
    if config["rope_position_scaling_factor"] != 1:
        metadata["llama.rope.scaling.type"] = "linear"
        metadata["llama.rope.scaling.factor"] = float(config["rope_position_scaling_factor"])
    for key in ROPE_ADJUSTMENT:
        if config[key] is not None:  # llama.cpp takes what follows from them, the tensor; this project all four
            metadata[OWN_KEY.format(key)] = float(config[key])
    return metadata


def _outgoing(checkpoint: Checkpoint, types: Mapping[str, str]) -> dict[str, Outgoing]:
    """Every tensor of the file, by GGUF's names, the embeddings first as in other writers' files."""
    config, names = checkpoint.config, tensor_names(checkpoint.config)
    head_dim = config["hidden_dim"] // config["num_query_heads"]
    found = {}
    if config[ROPE_ADJUSTMENT[0]] is not None:
        divisors = llama_3_divisors(config, config).astype(np.float32)
        found[ROPE_FACTORS] = Outgoing(divisors.shape, "F32", lambda: iter([divisors.tobytes()]))
    for path, shape in variable_shapes(config).items():
        pairs_of = head_dim if names[path].endswith(IN_PAIRS) else None
        found[names[path]] = _out(checkpoint.tensors[path], path, shape, types[path], pairs_of)
    return found


def _out(tensor: Tensor, path: str, shape: tuple[int, ...], type_: str, pairs_of: int | None) -> Outgoing:
    turned = is_turned(path)
    return Outgoing(shape[::-1] if turned else shape, type_, lambda: _blocks(tensor, turned, type_, pairs_of))


def _blocks(tensor: Tensor, turned: bool, type_: str, pairs_of: int | None) -> Iterator[Any]:
    """The tensor's bytes in GGUF's order; `pairs_of`: head_dim, if its rows go in pairs."""
    values = tensor.read(None)
    rows = values.T if turned else values.reshape(-1, values.shape[-1])
    step = pairs_of or 1  # a block holds whole heads
    step *= max(1, _BLOCK_VALUES // (rows.shape[1] * step))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        if pairs_of:
            halves = part.reshape(-1, 2, pairs_of // 2, part.shape[1])  # (N, 2, H/2, I)
            part = halves.swapaxes(1, 2).reshape(part.shape)
        try:
            encoded = encode(np.ascontiguousarray(part, np.float32), type_)
        except OverflowError as error:
            action = "give --dtype float32 or bfloat16, which have room for it"
            raise InputError(
                Problem("a weight is too large for its type", tensor.origin, f"beyond {error}", action)
            ) from None
        yield encoded.reshape(-1).view(np.uint8).data
