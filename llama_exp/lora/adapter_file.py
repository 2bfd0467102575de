"""The adapters of a backbone as a file: written, and read into a backbone that has some or gets them.

Importing this module imports no framework.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llama_exp.errors import InputError, Problem
from llama_exp.lora.enable import adapters, attach, base_digest, summarize_arguments
from llama_exp.lora.targets import shortest_targets

if TYPE_CHECKING:  # NumPy, which the check of a config does without
    from llama_exp.formats.adapter import Adapter

logger = logging.getLogger(__name__)


def save_adapter(backbone, folder: str | Path) -> str:
    """Writes the adapters as a PEFT checkpoint: `adapter_config.json` and `adapter_model.safetensors`.

    PEFT loads the folder as it is. The digest of the base stands in the safetensors metadata.

    Returns:
        The digest of the base, see `base_digest`.

    Raises:
        ValueError: the backbone has no adapters.
        StorageError: the folder cannot be written; files that were there are intact.
    """
    from llama_exp.formats.peft import adapter as peft

    found = adapters(backbone)
    if not found:
        raise ValueError("The backbone has no adapters to save. Call enable_lora first.")
    matrices = {path: adapter.matrices() for path, adapter in found.items()}
    base = {"digest": base_digest(backbone), "variable_dtype": _stored_dtype(backbone)}
    peft.write(Path(folder), matrices, list(backbone.linear_layers()), backbone.lora_arguments, base)
    return base["digest"]


def _stored_dtype(backbone) -> str:
    """The type of the base's weights: those of another type have another digest."""
    return backbone.variable_dtype if backbone.quantization is None else backbone.quantization.mode


def load_adapter(backbone, path: str | Path) -> None:
    """Gives `backbone` the adapters of a file: creates them, or fills those that are there.

    Reads what `save_adapter` wrote, what PEFT writes for a Llama, and KerasHub's `.lora.h5`; see
    `formats.open_adapter`. Every tensor is used and every adapter filled.

    Raises:
        InputError: the file is damaged, belongs to another architecture or base, or its ranks, scales or layers are
            not those of the adapters that are there.
    """
    from llama_exp.formats import open_adapter

    with open_adapter(path, backbone.get_config()) as adapter:
        load(backbone, adapter, adapter.dropout)


def other_layers(adapter: Adapter, paths: Iterable[str], linear_paths: list[str]) -> Iterator[Problem]:
    """The problem of an adapter whose layers are not `paths`."""
    from llama_exp.formats.adapter import shorten_names

    own, wanted = set(adapter.ranks), set(paths)
    if own == wanted:
        return
    missing = [f"not adapted: {path}" for path in adapter.ranks if path not in wanted]
    missing += [f"not in the file: {path}" for path in paths if path not in own]
    targets = ",".join(shortest_targets(list(adapter.ranks), linear_paths))
    yield Problem(
        f"the adapter in {adapter.path} has {len(own)} layers, the model adapts {len(wanted)}",
        "lora.targets",
        shorten_names(missing),
        f"set lora.targets=[{targets}]",
    )


def load(backbone, adapter: Adapter, dropout: float) -> None:
    """Creates or fills the adapters of `backbone` from an open file; see `load_adapter`.

    Nothing changes unless every tensor can be read. `dropout` holds for adapters that are created.
    """
    present = adapters(backbone)
    if present:
        _require_same_adapters(adapter, present, list(backbone.linear_layers()))
    _check_base(backbone, adapter.path, adapter.base)
    matrices = {path: adapter.read(path) for path in adapter.ranks}
    if not present:
        scales = {path: adapter.scale_of(path) for path in adapter.ranks}
        attach(backbone, adapter.ranks, scales, dropout, adapter.use_dora)
        stated = (adapter.rank, adapter.alpha, adapter.alphas, dropout, adapter.use_rslora, adapter.use_dora)
        backbone.lora_arguments = summarize_arguments(*stated)
    for path, layer in adapters(backbone).items():
        layer.assign(matrices[path])


def _require_same_adapters(adapter: Adapter, present: Mapping, linear_paths: list[str]) -> None:
    from llama_exp.formats.adapter import shorten_names

    problems = list(other_layers(adapter, present, linear_paths))
    use_dora = any("magnitude_O" in layer.variables_by_name() for layer in present.values())
    if use_dora != adapter.use_dora:
        names = {True: "DoRA (use_dora)", False: "LoRA"}
        action = "give the model adapters of the same kind, or none: load_adapter creates what the file has"
        found = f"{names[adapter.use_dora]} (model: {names[use_dora]})"
        problems.append(Problem("the adapters are of another kind than the model's", str(adapter.path), found, action))
    wanted = {path: (layer.rank, layer.scale) for path, layer in present.items()}
    offered = {path: (rank, adapter.scale_of(path)) for path, rank in adapter.ranks.items()}
    differing = [path for path in offered if wanted.get(path, offered[path]) != offered[path]]
    if differing:
        found = shorten_names([f"{path}: {offered[path]} (model: {wanted[path]})" for path in differing])
        action = "give the model adapters of the same rank and alpha, or none: load_adapter creates what the file has"
        what = "rank and scale are not those of the model's adapters"
        problems.append(Problem(what, str(adapter.path), found, action))
    if problems:
        raise InputError(*problems)


def _check_base(backbone, folder, base):
    if base is None:
        logger.info("%s does not say which base weights it was trained on (only our own files do)", folder)
    elif base["variable_dtype"] != _stored_dtype(backbone):
        logger.warning(
            "%s was trained on %s weights; the base here is %s, so that it cannot be compared",
            folder,
            base["variable_dtype"],
            _stored_dtype(backbone),
        )
    elif base["digest"] != base_digest(backbone):
        action = "load the base weights it was trained on first"
        raise InputError(
            Problem("the adapter was trained on other base weights", str(folder), json.dumps(base), action)
        )
