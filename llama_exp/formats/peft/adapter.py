"""A folder of PEFT's (`adapter_config.json`, `adapter_model.safetensors`) <-> adapter matrices by our paths.

    transformer_layer_0/self_attention/query  A (I, R)
    base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight  (R, I)

and likewise lora_B.weight (O, R) and, with DoRA, lora_magnitude_vector (O,).

Shape letters: I inputs, O outputs, R rank.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from llama_exp.architecture import linear_shapes
from llama_exp.errors import InputError
from llama_exp.files.json_file import inside, parse_json
from llama_exp.files.writing import make_folder, replaced, storage_errors, write_json
from llama_exp.formats import safetensors_file
from llama_exp.formats.adapter import ACTION, Adapter, Matrices, check_fit, require_layers, shorten_names
from llama_exp.formats.checkpoint import Tensor
from llama_exp.formats.hugging_face.tensor_names import BLOCK_NAMES
from llama_exp.formats.peft.config import PeftConfig, read_config

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"
METADATA_KEY = "llama_exp"
BASE_KEYS = {"digest", "variable_dtype"}
PREFIX = "base_model.model."
# PEFT calls the layers as transformers does.
PEFT_NAMES = {path.removesuffix("/kernel"): name for path, name in BLOCK_NAMES.items() if path.endswith("/kernel")}
OUR_NAMES = {peft: ours for ours, peft in PEFT_NAMES.items()}
# What PEFT calls the fields of `Matrices`, in their order.
PARTS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
KEY = re.compile(
    rf"base_model\.model\.model\.layers\.(0|[1-9]\d{{0,8}})\.(\w+\.\w+)\.({'|'.join(map(re.escape, PARTS))})"
)


def write(
    folder: Path, matrices: Mapping, linear_paths: Sequence[str], arguments: Mapping, base: Mapping[str, str]
) -> None:
    """Writes both files into `folder`, which is created if need be; raises `StorageError` if that fails.

    Args:
        folder: where to.
        matrices: `Matrices` by the path of their linear layer.
        linear_paths: all linear layers of the model.
        arguments: `rank`, `alpha`, `dropout`, `use_rslora` and `use_dora`; `alpha_pattern`, alpha by the path of a
            linear layer, where it differs from `alpha`. The ranks are those of the matrices.
        base: what identifies the frozen weights; goes into the metadata as JSON.
    """
    ranks = {path: own.a_IR.shape[1] for path, own in matrices.items()}
    alphas = {path: arguments.get("alpha_pattern", {}).get(path, arguments["alpha"]) for path in matrices}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": arguments["rank"],
        "lora_alpha": arguments["alpha"],
        "rank_pattern": _pattern(ranks, arguments["rank"]),
        "alpha_pattern": _pattern(alphas, arguments["alpha"]),
        "lora_dropout": arguments["dropout"],
        "use_rslora": arguments["use_rslora"],
        "use_dora": arguments["use_dora"],
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": _target_modules(list(matrices), linear_paths),
    }
    tensors = {}
    for path, own in matrices.items():
        for part, matrix in zip(PARTS, own, strict=True):
            if matrix is None:
                continue
            name = f"{PREFIX}{_module(path)}.{part}"
            tensors[name] = _transposed(name, matrix)
    make_folder(folder)
    with storage_errors(folder / WEIGHTS_FILE), replaced(folder / WEIGHTS_FILE) as draft:
        safetensors_file.write_file(draft, tensors, {"format": "pt", METADATA_KEY: json.dumps(base)})
    write_json(folder / CONFIG_FILE, config)


def _transposed(name: str, matrix: np.ndarray) -> Tensor:
    return Tensor(matrix.T.shape, matrix.dtype, name, lambda dtype: matrix.T)


def _module(path: str) -> str:
    """`model.layers.0.self_attn.q_proj` for `transformer_layer_0/self_attention/query`."""
    block, _, rest = path.partition("/")
    return f"model.layers.{block.rpartition('_')[2]}.{PEFT_NAMES[rest]}"


def _short(path: str) -> str:
    """`q_proj` for `transformer_layer_0/self_attention/query`."""
    return _module(path).rpartition(".")[2]


def _pattern(values: dict[str, float], default: float) -> dict[str, float]:
    """PEFT's pattern for what differs from `default`: short names where all such layers agree, else module names."""
    by_name: dict[str, set[float]] = {}
    for path, value in values.items():
        by_name.setdefault(_short(path), set()).add(value)
    return {
        _short(path) if len(by_name[_short(path)]) == 1 else _module(path): value
        for path, value in values.items()
        if value != default
    }


def _target_modules(paths: Sequence[str], linear_paths: Sequence[str]) -> list[str]:
    """Short names (`q_proj`) where they mean exactly `paths`, whole module names otherwise."""
    short = {_short(path) for path in paths}
    meant = {path for path in linear_paths if _short(path) in short}
    return sorted(short) if meant == set(paths) else [_module(path) for path in paths]


@contextlib.contextmanager
def open_adapter(folder: Path, config: Mapping) -> Iterator[Adapter]:
    """A folder of PEFT's, checked against the model of `config`; see `adapter.open_adapter`."""
    stated = read_config(inside(folder, CONFIG_FILE))
    path = inside(folder, WEIGHTS_FILE)
    if not os.path.lexists(path) and (folder / PICKLE_FILE).exists():
        action = f"convert it to {WEIGHTS_FILE} on a machine that you trust it with, by saving it again with PEFT"
        raise InputError.about(folder, "the adapter is a Python pickle, which is never read", PICKLE_FILE, action)
    with safetensors_file.open_file(path) as file:
        pairs = _by_layer(path, file.tensors, config)
        modules = {name: _module(name) for name in linear_shapes(config)}
        _require_targeted(folder, stated, modules, pairs)
        ranks = {name: stated.rank_of(modules[name]) for name in pairs}
        _check_shapes(path, pairs, ranks, stated.use_dora, config)

        def read(name: str) -> Matrices:
            own = [pairs[name][part] for part in PARTS if part in pairs[name]]
            return Matrices(*(tensor.read(np.float32, transpose=len(tensor.shape) == 2) for tensor in own))

        yield Adapter(
            path=folder,
            format="peft",
            rank=stated.rank,
            alpha=stated.alpha,
            dropout=stated.dropout,
            use_rslora=stated.use_rslora,
            use_dora=stated.use_dora,
            ranks=ranks,
            alphas={name: stated.alpha_of(modules[name]) for name in pairs},
            base=_base(path, file.metadata.get(METADATA_KEY)),
            read=read,
        )


def _by_layer(path: Path, tensors: Mapping, config: Mapping) -> dict[str, dict]:
    """The tensors by path of their linear layer and part, in the model's order; every one of the file."""
    found: dict[str, dict] = {}
    foreign = []
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None or match[2] not in OUR_NAMES:
            foreign.append(f"{key[:100]} {tensor.shape}")
        else:
            found.setdefault(f"transformer_layer_{match[1]}/{OUR_NAMES[match[2]]}", {})[match[3]] = tensor
    if foreign:
        action = f"save it from PEFT around LlamaForCausalLM: {PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight"
        raise InputError.about(
            path, "the file holds tensors that are no adapter of a Llama", shorten_names(foreign), action
        )
    if not found:
        raise InputError.about(path, "the file holds no adapter", "0 tensors", ACTION)
    require_layers(path, found, config)
    return {name: found[name] for name in linear_shapes(config) if name in found}


def _require_targeted(folder: Path, stated: PeftConfig, modules: Mapping[str, str], pairs: Mapping) -> None:
    """The layers of the weights are those of the configuration, so that no tensor of a file got lost."""
    targeted = stated.targeted(modules.values())
    if targeted is None:
        return
    stored = {modules[name] for name in pairs}
    missing, unexpected = [name for name in targeted if name not in stored], sorted(stored - set(targeted))
    if missing:
        what = f"{len(missing)} modules that {CONFIG_FILE} targets have no tensors"
        raise InputError.about(folder, what, shorten_names(missing), "save the adapter again, with all of its tensors")
    if unexpected:
        what = f"{len(unexpected)} modules have tensors, but {CONFIG_FILE} does not target them"
        raise InputError.about(
            folder, what, shorten_names(unexpected), "save the adapter again, configuration and tensors together"
        )


def _check_shapes(path: Path, pairs: Mapping, ranks: Mapping[str, int], use_dora: bool, config: Mapping) -> None:
    shown = [part.removesuffix(".weight") for part in PARTS]
    shapes = {
        name: {part.removesuffix(".weight"): tensor.shape for part, tensor in pair.items()}
        for name, pair in pairs.items()
    }
    linears, expected = linear_shapes(config), {}
    for name, rank in ranks.items():
        num_inputs, num_outputs = linears[name]
        sizes = [(rank, num_inputs), (num_outputs, rank), (num_outputs,)]
        expected[name] = dict(zip(shown, sizes if use_dora else sizes[:2], strict=False))
    check_fit(path, shapes, expected)


def _base(path: Path, text: str | None) -> dict[str, str] | None:
    """What `write` put into the metadata; None: nothing, as in PEFT's own files."""
    if text is None:
        return None
    base = parse_json(path, text.encode())
    if not set(base) >= BASE_KEYS or not all(isinstance(value, str) for value in base.values()):
        raise InputError.about(path, f"the metadata {METADATA_KEY} does not describe a base", text[:80], ACTION)
    return base
