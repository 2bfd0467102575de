"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685) of a backbone, and its adapters on disk.

Three steps turn a model into one with adapters: freeze every variable, put a `LoraAdapter` into the slot of each
target `Linear`, train what is trainable. What the variables look like around `enable(backbone, rank=8)`:

    .../query/kernel  (I, O)  trainable      .../query/kernel          (I, O)  frozen
                                             .../query/adapter/lora_a  (I, 8)  trainable
                                             .../query/adapter/lora_b  (8, O)  trainable

DoRA (Liu et al. 2024, arXiv:2402.09353) adds `.../query/adapter/lora_magnitude` (O,), trainable, and what is known of
the kernel. Importing this module imports no framework.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_exp.errors import InputError, Problem
from llama_exp.limits import raise_first
from llama_exp.limits.lora import ADAPTERS
from llama_exp.lora.targets import layer_problems, matching_paths, shortest_targets, values_by_path

if TYPE_CHECKING:  # NumPy, which the check of a config does without
    from llama_exp.formats.adapter import Adapter

logger = logging.getLogger(__name__)


def enable(
    backbone,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    use_rslora: bool = False,
    targets: Sequence[str] = ("query", "value"),
    rank_pattern: Mapping[str, int] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
    use_dora: bool = False,
) -> None:
    """Freezes `backbone` and adds trainable adapters; afterwards they are its only trainable variables.

    Args:
        backbone: a `LlamaBackbone` without adapters.
        rank: R, at least 1.
        alpha: numerator of the scale; None: the layer's rank, for a scale of 1.
        dropout: probability in [0, 1), on the adapters' input, in training.
        use_rslora: divide alpha by sqrt(rank) instead of rank.
        targets: see `lora_targets.matching_paths`.
        rank_pattern: target -> rank of the layers it means, where that is another than `rank`.
        alpha_pattern: target -> alpha, likewise.
        use_dora: a trainable magnitude for every output; see `models.dora_adapter`.

    Raises:
        ValueError: an impossible argument, a target or pattern that matches nothing, or adapters that are there.
    """
    from llama_exp.formats.adapter import compute_scale

    rank_pattern, alpha_pattern = rank_pattern or {}, alpha_pattern or {}
    if adapters(backbone):
        raise ValueError("The backbone has adapters already. Merge them first, or start from a new backbone.")
    patterns = {"rank_pattern": rank_pattern, "alpha_pattern": alpha_pattern}
    ADAPTERS.require(rank=rank, alpha=alpha, dropout=dropout, targets=targets, **patterns)
    shapes = {path: (linear.input_dim, linear.output_dim) for path, linear in backbone.linear_layers().items()}
    raise_first(layer_problems(rank, targets, patterns, shapes))
    ranks = values_by_path(rank_pattern, matching_paths(targets, list(shapes)), rank)
    alphas = values_by_path(alpha_pattern, list(ranks), alpha)
    alphas = {path: ranks[path] if own is None else own for path, own in alphas.items()}
    scales = {path: compute_scale(ranks[path], alphas[path], use_rslora) for path in ranks}
    _attach(backbone, ranks, scales, dropout, use_dora)
    backbone.lora_arguments = _arguments(rank, rank if alpha is None else alpha, alphas, dropout, use_rslora, use_dora)


def _arguments(rank, alpha, alphas: Mapping[str, float], dropout, use_rslora, use_dora) -> dict:
    """What `save_adapter` writes about all adapters at once."""
    arguments = {"rank": rank, "alpha": alpha, "dropout": dropout, "use_rslora": use_rslora, "use_dora": use_dora}
    alpha_pattern = {path: own for path, own in alphas.items() if own != alpha}
    return arguments | ({"alpha_pattern": alpha_pattern} if alpha_pattern else {})


def _attach(backbone, ranks: Mapping[str, int], scales: Mapping[str, float], dropout: float, use_dora: bool):
    import keras

    from llama_exp.lora.adapter import POLICY_OF_COMPUTE_DTYPE, LoraAdapter
    from llama_exp.lora.dora import DoraAdapter

    for variable in backbone.weights:
        variable.trainable = False
    linears, kind = backbone.linear_layers(), DoraAdapter if use_dora else LoraAdapter
    for path, rank in ranks.items():
        linear = linears[path]
        policy = POLICY_OF_COMPUTE_DTYPE[linear.compute_dtype]
        adapter = kind(rank, linear.output_dim, scales[path], dropout, dtype=policy, name="adapter")
        with contextlib.ExitStack() as scopes:
            for part in path.split("/"):
                scopes.enter_context(keras.name_scope(part))
            adapter.build((None, linear.input_dim))
        if use_dora:
            adapter.measure(linear.float_kernel())
        linear.attach(adapter)
    if dropout > 0 and backbone.seed_generator is None:
        backbone._tracker.unlock()  # Keras locks a model when it is quantized
        backbone.seed_generator = keras.random.SeedGenerator()


def adapters(backbone) -> dict:
    """Every `LoraAdapter` by the path of its linear layer."""
    linears = backbone.linear_layers()
    return {path: linear.adapter for path, linear in linears.items() if linear.adapter is not None}


def adapter_variables(backbone) -> dict:
    """What trains of the adapters, by path: `.../adapter/lora_a`, `lora_b` and, with DoRA, `lora_magnitude`."""
    return {v.path: v for adapter in adapters(backbone).values() for v in adapter.variables_by_name().values()}


def merge(backbone) -> None:
    """Puts each adapter into its kernel and drops it: the same function, as a plain trainable backbone.

        W + s A B, with DoRA m / ||W + s A B|| * (W + s A B)

    A quantized base becomes a floating-point one, embeddings included: its small types cannot hold the sum. Where it
    rounded activations, that rounding is gone.

    Numerics: the sum in float32, rounded once to the kernel's dtype.
    """
    from keras import ops

    from llama_exp.formats.adapter import merge_kernel

    linears, found = backbone.linear_layers(), adapters(backbone)
    matrices = {path: (adapter.matrices(), adapter.scale) for path, adapter in found.items()}
    if backbone.quantization is not None:
        from llama_exp import quantization  # NumPy must not be imported with this module, which checks configs too

        changes = {
            f"{path}/kernel": lambda kernel, own=own: merge_kernel(kernel, *own) for path, own in matrices.items()
        }
        quantization.dequantize(backbone, changes)
        return
    for path, own in matrices.items():
        kernel = linears[path].kernel
        kernel.assign(ops.cast(merge_kernel(ops.convert_to_numpy(linears[path].float_kernel()), *own), kernel.dtype))
        linears[path].attach(None)
    for variable in backbone.weights:
        variable.trainable = True
    backbone.lora_arguments = None


def base_digest(backbone) -> str:
    """The digest (see `weights_digest`) of every variable that is not an adapter's."""
    from llama_exp.backend.digest import weights_digest

    own = {variable.path for adapter in adapters(backbone).values() for variable in adapter.weights}
    return weights_digest(variable for variable in backbone.weights if variable.path not in own)


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
        _attach(backbone, adapter.ranks, scales, dropout, adapter.use_dora)
        stated = (adapter.rank, adapter.alpha, adapter.alphas, dropout, adapter.use_rslora, adapter.use_dora)
        backbone.lora_arguments = _arguments(*stated)
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
