"""A folder of PEFT's (`adapter_config.json`, `adapter_model.safetensors`) <-> adapter matrices by our paths.

    transformer_layer_0/self_attention/query  A (I, R)
    base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight  (R, I)

Shape letters: I inputs, O outputs, R rank.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from llama_exp import storage
from llama_exp.errors import InputError, Problem

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
METADATA_KEY = "llama_exp"
PEFT_NAMES = {
    "self_attention/query": "self_attn.q_proj",
    "self_attention/key": "self_attn.k_proj",
    "self_attention/value": "self_attn.v_proj",
    "self_attention/attention_output": "self_attn.o_proj",
    "feedforward_gate_dense": "mlp.gate_proj",
    "feedforward_intermediate_dense": "mlp.up_proj",
    "feedforward_output_dense": "mlp.down_proj",
}
OUR_NAMES = {peft: ours for ours, peft in PEFT_NAMES.items()}
KEY = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(\w+\.\w+)\.lora_(A|B)\.weight")
# What changes the function computed and has no counterpart here, with the values that mean "not used".
UNSUPPORTED = {
    "use_dora": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": (None, []),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "layer_replication": (None,),
    "trainable_token_indices": (None, {}),
    "target_parameters": (None, []),
}


def write(folder: Path, matrices: dict, linear_paths: list[str], arguments: dict, base: dict) -> None:
    """Writes both files into `folder`, which is created if need be; raises `StorageError` if that fails.

    Args:
        folder: where to.
        matrices: A (I, R) and B (R, O), float32, by the path of their linear layer.
        linear_paths: all linear layers of the model.
        arguments: `rank`, `alpha`, `dropout` and `use_rslora`.
        base: what identifies the frozen weights; goes into the metadata as JSON.
    """
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": arguments["rank"],
        "lora_alpha": arguments["alpha"],
        "lora_dropout": arguments["dropout"],
        "use_rslora": arguments["use_rslora"],
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": _target_modules(list(matrices), linear_paths),
    }
    tensors = {}
    for path, (a_IR, b_RO) in matrices.items():
        module = f"base_model.model.{_peft_module(path)}"
        tensors[f"{module}.lora_A.weight"] = np.ascontiguousarray(a_IR.T)
        tensors[f"{module}.lora_B.weight"] = np.ascontiguousarray(b_RO.T)
    metadata = {"format": "pt", METADATA_KEY: json.dumps(base)}
    storage.make_folder(folder)
    _replace(folder / WEIGHTS_FILE, safetensors.numpy.save(tensors, metadata=metadata))
    storage.write_json(folder / CONFIG_FILE, config)


def _replace(path: Path, content: bytes) -> None:
    """Replaces a file: readers find the old content or the new one."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with storage.storage_errors(path):
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _peft_module(path: str) -> str:
    block, _, rest = path.partition("/")
    return f"model.layers.{block.rpartition('_')[2]}.{PEFT_NAMES[rest]}"


def _target_modules(paths: list[str], linear_paths: list[str]) -> list[str]:
    """Short names (`q_proj`) where they mean exactly `paths`, whole module names otherwise."""
    short = {_peft_module(path).rpartition(".")[2] for path in paths}
    meant = {path for path in linear_paths if _peft_module(path).rpartition(".")[2] in short}
    return sorted(short) if meant == set(paths) else [_peft_module(path) for path in paths]


def read(folder: Path) -> tuple[dict, dict, dict | None]:
    """Matrices by path, `arguments` and `base` (None where the file has none), as given to `write`.

    Raises:
        InputError: a file is missing or damaged, or the adapter uses something that is not supported here.
    """
    arguments = _read_arguments(folder / CONFIG_FILE)
    path = folder / WEIGHTS_FILE
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            base = (file.metadata() or {}).get(METADATA_KEY)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, safetensors.SafetensorError) as error:
        raise _rejected(path, "the file cannot be read", str(error)) from error
    return _matrices(path, tensors, arguments["rank"]), arguments, None if base is None else json.loads(base)


def _read_arguments(path: Path) -> dict:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        arguments = {"rank": int(config["r"]), "alpha": float(config["lora_alpha"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _rejected(path, "the file is no LoRA configuration of PEFT's", repr(error)) from error
    if config.get("peft_type") != "LORA":
        raise _rejected(path, "the adapter is not LoRA", str(config.get("peft_type")))
    for key, unused in UNSUPPORTED.items():
        if key in config and config[key] not in unused:
            raise _rejected(path, f"{key} is not supported here", json.dumps(config[key]))
    arguments["dropout"] = float(config.get("lora_dropout") or 0.0)
    arguments["use_rslora"] = bool(config.get("use_rslora", False))
    return arguments


def _matrices(path: Path, tensors: dict, rank: int) -> dict:
    parts: dict[str, dict] = {}
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None or match[2] not in OUR_NAMES or tensor.ndim != 2:
            raise _rejected(path, "the file holds a tensor that is no adapter of a Llama", f"{key} {tensor.shape}")
        parts.setdefault(f"transformer_layer_{match[1]}/{OUR_NAMES[match[2]]}", {})[match[3]] = tensor
    for name, pair in parts.items():
        if set(pair) != {"A", "B"} or pair["A"].shape[0] != rank or pair["B"].shape[1] != rank:
            shapes = {letter: tensor.shape for letter, tensor in pair.items()}
            raise _rejected(path, f"an adapter is not a pair of rank {rank}", f"{name}: {shapes}")
    if not parts:
        raise _rejected(path, "the file holds no adapter", "0 tensors")
    return {name: (pair["A"].T.astype(np.float32), pair["B"].T.astype(np.float32)) for name, pair in parts.items()}


def _rejected(path: Path, what: str, found: str) -> InputError:
    return InputError(Problem(what, str(path), found, "use a LoRA adapter folder of this package or of PEFT"))
