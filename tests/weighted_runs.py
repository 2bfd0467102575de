"""Run folders with weights of known changes, made by NumPy alone."""

import json

import numpy as np
import yaml

from llama_exp.architecture import CONFIG_KEYS, DEFAULTS, INITIALIZER_RANGES, linear_shapes
from llama_exp.files.digest import file_digest
from llama_exp.formats import open_checkpoint
from llama_exp.formats.adapter import Matrices
from llama_exp.formats.checkpoint import Tensor
from llama_exp.formats.digest import digest_tensors
from llama_exp.formats.keras_hub import checkpoint as keras_hub
from llama_exp.formats.peft import adapter as peft
from llama_exp.formats.random_weights import random_checkpoint
from llama_exp.trainer import Checkpoints

MODEL = DEFAULTS | INITIALIZER_RANGES | {
    "_target_": "llama_exp.models.LlamaBackbone",
    "vocabulary_size": 40,
    "num_layers": 2,
    "num_query_heads": 2,
    "hidden_dim": 12,
    "intermediate_dim": 20,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}  # fmt: skip
LORA = {
    "rank": 0,
    "alpha": 8.0,
    "targets": ["all-linear"],
    "rank_pattern": {},
    "alpha_pattern": {},
    "dropout": 0.0,
    "use_rslora": False,
    "use_dora": False,
    "source": None,
}
QUERY = "transformer_layer_0/self_attention/query"
SEED = 5
NONE = {"mode": "none", "quantize_activations": None, "group_size": None, "embeddings": None,
        "float_activations": None, "asymmetric_activations": None, "gptq": None, "int8_layers": None}  # fmt: skip


def start_arrays(seed=SEED):
    """What a run of this seed starts from: float32 by path."""
    return {path: tensor.read(None) for path, tensor in random_checkpoint(MODEL, seed).tensors.items()}


def low_rank(generator, shape, rank, size=1e-3):
    """A matrix of a rank whose singular values are all about the same."""
    left, _ = np.linalg.qr(generator.standard_normal((shape[0], rank)))
    right, _ = np.linalg.qr(generator.standard_normal((shape[1], rank)))
    return (size * left @ right.T).astype("float32")


def write_model(folder, arrays):
    """A KerasHub preset of these arrays."""
    folder.mkdir(parents=True)
    tensors = {
        path: Tensor(array.shape, array.dtype, path, lambda dtype, array=array: array.astype(dtype or array.dtype))
        for path, array in arrays.items()
    }
    keras_hub.write(folder, {key: MODEL[key] for key in CONFIG_KEYS}, tensors)
    return folder


def digest_of(folder):
    """The digest of a model's weights, as a run on it records it."""
    with open_checkpoint(folder) as checkpoint:
        return digest_tensors(sorted(checkpoint.tensors.items()), np.dtype("float32"))


def random_matrices(generator, layers, rank=3, magnitude=False):
    """Adapters of these layers."""
    shapes = linear_shapes(MODEL)
    return {
        layer: Matrices(
            generator.standard_normal((shapes[layer][0], rank)).astype("float32"),
            generator.standard_normal((rank, shapes[layer][1])).astype("float32"),
            np.abs(generator.standard_normal(shapes[layer][1])).astype("float32") if magnitude else None,
        )
        for layer in layers
    }


def write_adapter(folder, matrices, lora):
    """A folder of PEFT's."""
    peft.write(folder, matrices, list(linear_shapes(MODEL)), lora, {"digest": "0", "variable_dtype": "float32"})
    return folder


def make_run(
    folder,
    arrays=None,
    matrices=None,
    preset=None,
    lora=None,
    status="finished",
    policy="float32",
    quantization=NONE,
    begun=None,
):
    """A run that left a model, or adapters.

    Args:
        folder: of the run, new.
        arrays: of its model/; None: it left none.
        matrices: of its adapter/; None: it left none.
        preset: folder that it started from; None: from random weights.
        lora: changes of the section.
        status: of summary.json.
        policy: of its precision.
        quantization: its section.
        begun: what run.json says of the adapter that it went on from.
    """
    folder.mkdir(parents=True)
    section = LORA | (lora or {})
    config = {
        "seed": SEED,
        "model": MODEL,
        "lora": section,
        "precision": {"policy": policy},
        "preset": {"source": None if preset is None else str(preset), "load_weights": True},
        "quantization": quantization,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    digest = None if preset is None else digest_of(preset)
    facts = {"source": preset and str(preset), "origin": preset and str(preset), "revision": None, "digest": digest}
    (folder / "run.json").write_text(json.dumps({"starts": [{"time": "2026"}], "preset": facts, "lora": begun}))
    if arrays is not None:
        write_model(folder / "model", arrays)
    if matrices is not None:
        write_adapter(folder / "adapter", matrices, section)
    files = [path for path in folder.rglob("*") if path.suffix in (".h5", ".safetensors")]
    weights = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
    (folder / "summary.json").write_text(json.dumps({"status": status, "weights": {"trained": "1", **weights}}))
    return folder


def save_checkpoint(folder, step, arrays):
    """A checkpoint of a run with these variables."""
    checkpoints = Checkpoints(folder / "checkpoints", keep=9, config_hash="a", facts={})
    return checkpoints.save(step, {"trainable": arrays, "optimizer": {}}, {}, base_digest="")
