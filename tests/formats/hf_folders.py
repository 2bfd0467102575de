"""Hugging Face folders made by hand, so that they can be wrong; and configurations as they were published."""

import json
import struct

import numpy as np
from oracles import HF_NAMES

from llama_exp.architecture import variable_shapes

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 40,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}


def shapes(document=CONFIG):
    """Names and shapes of the tensors of a `LlamaForCausalLM`, spelled out from transformers' modules."""
    D, F, V = document["hidden_size"], document["intermediate_size"], document["vocab_size"]
    K = document["hidden_size"] // document["num_attention_heads"] * document["num_key_value_heads"]
    found = {"model.embed_tokens.weight": (V, D)}
    for i in range(document["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name, shape in {
            "self_attn.q_proj": (D, D),
            "self_attn.k_proj": (K, D),
            "self_attn.v_proj": (K, D),
            "self_attn.o_proj": (D, D),
            "mlp.gate_proj": (F, D),
            "mlp.up_proj": (F, D),
            "mlp.down_proj": (D, F),
            "input_layernorm": (D,),
            "post_attention_layernorm": (D,),
        }.items():
            found[f"{layer}.{name}.weight"] = shape
    found["model.norm.weight"] = (D,)
    if not document["tie_word_embeddings"]:
        found["lm_head.weight"] = (V, D)
    return found


def state(document=CONFIG, seed=0):
    """Random tensors of the model by their names in the file, float32."""
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes(document).items()}


def in_our_order(tensors, config):
    """The same tensors by our paths and in our orientation."""
    ours = {}
    for path in variable_shapes(config):
        block, _, rest = path.partition("/")
        if path == "token_embedding/embeddings":
            ours[path] = tensors["model.embed_tokens.weight"]
        elif path == "token_embedding/reverse_embeddings":
            ours[path] = tensors["lm_head.weight"].T
        elif path == "sequence_output_layernorm/scale":
            ours[path] = tensors["model.norm.weight"]
        else:
            ours[path] = tensors[f"model.layers.{block.rpartition('_')[2]}.{HF_NAMES[rest]}.weight"].T
    return ours


def file_bytes(header, data=b"", length=None):
    """A safetensors file from a header (object or bytes) that need not be right."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write_weights(path, tensors):
    """A correct safetensors file of float32 arrays."""
    header, data = {}, b""
    for name, values in tensors.items():
        offsets = [len(data), len(data) + values.nbytes]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": offsets}
        data += np.ascontiguousarray(values).tobytes()
    path.write_bytes(file_bytes(header, data))


def write_config(folder, **changes):
    """`CONFIG` with changes; `...` removes a key."""
    document = {key: value for key, value in (CONFIG | changes).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(document))


def write_folder(folder, tensors=None, **changes):
    """A checkpoint in one file; returns the folder."""
    folder.mkdir(exist_ok=True)
    write_config(folder, **changes)
    write_weights(folder / "model.safetensors", state(CONFIG | changes) if tensors is None else tensors)
    return folder


def write_shards(folder, tensors, **weight_map):
    """A checkpoint in two shards: the first three tensors, and the others; `weight_map` changes the index."""
    folder.mkdir(exist_ok=True)
    write_config(folder)
    names = list(tensors)
    index = {}
    for number, part in enumerate((names[:3], names[3:]), start=1):
        shard = f"model-{number:05}-of-00002.safetensors"
        write_weights(folder / shard, {name: tensors[name] for name in part})
        index |= dict.fromkeys(part, shard)
    document = {"metadata": {"total_size": 0}, "weight_map": index | weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document))
    return folder
