"""A small writer of GGUF files, right ones and wrong ones; what the tests claim of the reader rests on no library.

Types of metadata follow from Python's: int -> uint32, float -> float32, bool, str; a list of strings or numbers, and a
NumPy array with its own type. `Typed` states another.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import ml_dtypes
import numpy as np

UINT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 6, 7, 8, 9, 10
NUMBERS = {"u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": 4, "i4": 5, "f4": 6, "u8": 10, "i8": 11, "f8": 12}
F32, F16, BF16 = 0, 1, 30
PLAIN_TYPES = {np.dtype(np.float32): F32, np.dtype(np.float16): F16, np.dtype(ml_dtypes.bfloat16): BF16}


@dataclass
class Typed:
    """A value whose type and bytes are given."""

    kind: int
    content: bytes


@dataclass
class Blocks:
    """A tensor whose type and bytes are given; `shape` outermost first."""

    kind: int
    shape: tuple[int, ...]
    content: bytes
    offset: int | None = None  # None: behind the one before


def text(value) -> bytes:
    encoded = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def value(item) -> bytes:
    """Type and content of a value of the metadata."""
    if isinstance(item, Typed):
        return struct.pack("<I", item.kind) + item.content
    if isinstance(item, bool):
        return struct.pack("<I?", BOOL, item)
    if isinstance(item, int):
        return struct.pack("<II", UINT32, item)
    if isinstance(item, float):
        return struct.pack("<If", FLOAT32, item)
    if isinstance(item, str):
        return struct.pack("<I", STRING) + text(item)
    if isinstance(item, list) and all(isinstance(part, str) for part in item):
        return struct.pack("<IIQ", ARRAY, STRING, len(item)) + b"".join(map(text, item))
    array = np.asarray(item)
    return struct.pack("<IIQ", ARRAY, NUMBERS[array.dtype.str[1:]], array.size) + array.tobytes()


def gguf_bytes(metadata, tensors, version=3, num_keys=None, num_tensors=None, magic=b"GGUF") -> bytes:
    """A file's content.

    Args:
        metadata: key -> value; or a list of such pairs, for keys that are there twice.
        tensors: name -> array or `Blocks`; or a list of such pairs.
        num_keys: what the file says, if not the truth; `num_tensors` alike.
    """
    metadata = list(metadata.items()) if isinstance(metadata, dict) else metadata
    tensors = list(tensors.items()) if isinstance(tensors, dict) else tensors
    alignment = next((item for key, item in metadata if key == "general.alignment" and isinstance(item, int)), 32) or 32
    counts = (len(tensors) if num_tensors is None else num_tensors, len(metadata) if num_keys is None else num_keys)
    head = magic + struct.pack("<IQQ", version, *counts)
    for key, item in metadata:
        head += text(key) + value(item)
    data = b""
    for name, tensor in tensors:
        if not isinstance(tensor, Blocks):
            tensor = Blocks(PLAIN_TYPES[tensor.dtype], tensor.shape, tensor.tobytes())
        offset = len(data) if tensor.offset is None else tensor.offset
        shape = tensor.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, tensor.kind, offset)
        data += tensor.content + bytes(-len(tensor.content) % alignment)
    return head + bytes(-len(head) % alignment) + data


def pairs(kernel_IO, num_heads):
    """A kernel of this project -> (O, I) with the rows of each head in pairs, one row at a time."""
    rows = kernel_IO.T
    head_dim = len(rows) // num_heads
    order = [
        head * head_dim + half * (head_dim // 2) + i
        for head in range(num_heads)
        for i in range(head_dim // 2)
        for half in range(2)
    ]
    return np.ascontiguousarray(rows[order])


def llama_metadata(config) -> dict:
    """The metadata of a model of `config`, as a converter writes it."""
    metadata = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.block_count": config["num_layers"],
        "llama.context_length": 128,
        "llama.embedding_length": config["hidden_dim"],
        "llama.feed_forward_length": config["intermediate_dim"],
        "llama.attention.head_count": config["num_query_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": config["layer_norm_epsilon"],
        "llama.rope.freq_base": float(config["rope_max_wavelength"]),
        "llama.rope.dimension_count": config["hidden_dim"] // config["num_query_heads"],
        "llama.vocab_size": config["vocabulary_size"],
    }
    if config["rope_position_scaling_factor"] != 1:
        metadata["llama.rope.scaling.type"] = "linear"
        metadata["llama.rope.scaling.factor"] = config["rope_position_scaling_factor"]
    return metadata


def llama_tensors(config, arrays) -> dict[str, np.ndarray]:
    """Weights by this project's paths -> GGUF's tensors; norms are float32, as every converter has them."""
    tensors = {"token_embd.weight": arrays["token_embedding/embeddings"]}
    if not config["tie_word_embeddings"]:
        tensors["output.weight"] = np.ascontiguousarray(arrays["token_embedding/reverse_embeddings"].T)
    tensors["output_norm.weight"] = arrays["sequence_output_layernorm/scale"].astype("f4")
    names = {
        "attn_v": "self_attention/value",
        "attn_output": "self_attention/attention_output",
        "ffn_gate": "feedforward_gate_dense",
        "ffn_up": "feedforward_intermediate_dense",
        "ffn_down": "feedforward_output_dense",
    }
    for i in range(config["num_layers"]):
        ours, theirs = f"transformer_layer_{i}", f"blk.{i}"
        for name, path in names.items():
            tensors[f"{theirs}.{name}.weight"] = np.ascontiguousarray(arrays[f"{ours}/{path}/kernel"].T)
        query, key = (arrays[f"{ours}/self_attention/{name}/kernel"] for name in ("query", "key"))
        tensors[f"{theirs}.attn_q.weight"] = pairs(query, config["num_query_heads"])
        tensors[f"{theirs}.attn_k.weight"] = pairs(key, config["num_key_value_heads"])
        for name, path in (("attn_norm", "self_attention"), ("ffn_norm", "feedforward")):
            tensors[f"{theirs}.{name}.weight"] = arrays[f"{ours}/{path}_layernorm/scale"].astype("f4")
    return tensors
