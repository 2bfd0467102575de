"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685) of a backbone, and its adapters on disk.

Three steps turn a model into one with adapters: freeze every variable, put a `LoraAdapter` into the slot of each
target `Linear`, train what is trainable. What the variables look like around `enable(backbone, rank=8)`:

    .../query/kernel  (I, O)  trainable      .../query/kernel          (I, O)  frozen
                                             .../query/adapter/lora_a  (I, 8)  trainable
                                             .../query/adapter/lora_b  (8, O)  trainable

Importing this module imports no framework: `target_problems` and `matching_paths` also serve the check of a config.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_exp.errors import InputError, Problem

if TYPE_CHECKING:  # NumPy, which the check of a config does without
    from llama_exp.formats.adapter import Adapter

ATTENTION = ("query", "key", "value", "attention_output")
MLP = ("feedforward_gate_dense", "feedforward_intermediate_dense", "feedforward_output_dense")
GROUPS = {"attention": ATTENTION, "mlp": MLP, "all-linear": (*ATTENTION, *MLP)}

logger = logging.getLogger(__name__)


def matching_paths(targets: Sequence[str], paths: Sequence[str]) -> list[str]:
    """The `paths` that at least one of `targets` means, in the order of `paths`.

    A target is a group (`attention`, `mlp`, `all-linear`), the name of a layer (`query`), or a regular expression
    that matches a whole path (`transformer_layer_[01]/self_attention/.*`).
    """
    return [path for path in paths if any(_means(target, path) for target in targets)]


def _means(target: str, path: str) -> bool:
    name = path.rpartition("/")[2]
    if target in GROUPS:
        return name in GROUPS[target]
    try:
        return target == name or re.fullmatch(target, path) is not None
    except re.error:
        return False


def target_problems(targets: Sequence[str], paths: Sequence[str]) -> list[Problem]:
    """What is wrong with `targets` for a model whose linear layers have these `paths`; empty if nothing is."""
    names = [*GROUPS["all-linear"], *GROUPS]
    choices = f"allowed: {', '.join(names)}, or a regular expression for whole paths such as {paths[0]}"
    if not targets:
        return [Problem("no layer to adapt", "lora.targets", "[]", choices)]
    problems = []
    for target in targets:
        if any(_means(target, path) for path in paths):
            continue
        nearest = difflib.get_close_matches(target, [*names, *paths], n=1, cutoff=0.0)
        action = f"did you mean {nearest[0]}? {choices}" if nearest else choices
        problems.append(Problem("a target matches no linear layer", "lora.targets", target, action))
    return problems


def enable(
    backbone,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    use_rslora: bool = False,
    targets: Sequence[str] = ("query", "value"),
) -> None:
    """Freezes `backbone` and adds trainable adapters; afterwards they are its only trainable variables.

    Args:
        backbone: a `LlamaBackbone` without adapters.
        rank: R, at least 1.
        alpha: numerator of the scale; None: `rank`, for a scale of 1.
        dropout: probability in [0, 1), on the adapters' input, in training.
        use_rslora: divide alpha by sqrt(rank) instead of rank.
        targets: see `matching_paths`.

    Raises:
        ValueError: an impossible argument, a target that matches nothing, or adapters that are already there.
    """
    from llama_exp.formats.adapter import scale

    alpha = rank if alpha is None else alpha
    linears = backbone.linear_layers()
    _check_arguments(linears, rank, alpha, dropout)
    problems = target_problems(targets, list(linears))
    if problems:
        raise ValueError("\n".join(str(problem) for problem in problems))
    paths = matching_paths(targets, list(linears))
    one_scale = scale(rank, alpha, use_rslora)
    _attach(backbone, {path: (rank, one_scale) for path in paths}, dropout)
    backbone.lora_arguments = {"rank": rank, "alpha": alpha, "dropout": dropout, "use_rslora": use_rslora}


def _check_arguments(linears, rank, alpha, dropout):
    if any(linear.adapter is not None for linear in linears.values()):
        raise ValueError("The backbone has adapters already. Merge them first, or start from a new backbone.")
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank={rank!r} must be a whole number of at least 1.")
    if not alpha > 0:
        raise ValueError(f"alpha={alpha!r} must be greater than 0.")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout!r} must be a probability in [0, 1).")


def _attach(backbone, ranks_and_scales: Mapping[str, tuple[int, float]], dropout: float):
    import keras

    from llama_exp.models.lora_adapter import POLICY_OF_COMPUTE_DTYPE, LoraAdapter

    for variable in backbone.weights:
        variable.trainable = False
    linears = backbone.linear_layers()
    for path, (rank, one_scale) in ranks_and_scales.items():
        linear = linears[path]
        policy = POLICY_OF_COMPUTE_DTYPE[linear.compute_dtype]
        adapter = LoraAdapter(rank, linear.output_dim, one_scale, dropout, dtype=policy, name="adapter")
        with contextlib.ExitStack() as scopes:
            for part in path.split("/"):
                scopes.enter_context(keras.name_scope(part))
            adapter.build((None, linear.input_dim))
        linear.attach(adapter)
    if dropout > 0 and backbone.seed_generator is None:
        backbone._tracker.unlock()  # Keras locks a model when it is quantized
        backbone.seed_generator = keras.random.SeedGenerator()


def adapters(backbone) -> dict:
    """Every `LoraAdapter` by the path of its linear layer."""
    linears = backbone.linear_layers()
    return {path: linear.adapter for path, linear in linears.items() if linear.adapter is not None}


def adapter_variables(backbone) -> dict:
    """The adapters' variables by path, `.../adapter/lora_a` and `.../adapter/lora_b`."""
    return {v.path: v for adapter in adapters(backbone).values() for v in (adapter.lora_a, adapter.lora_b)}


def merge(backbone) -> None:
    """Adds s A B to each adapted kernel and drops the adapters: the same function, as a plain trainable backbone.

    A quantized base becomes a floating-point one, embeddings included: integers cannot hold the sum. Where it rounded
    activations, that rounding is gone.

    Numerics: the sum in float32, rounded once to the kernel's dtype.
    """
    from keras import ops

    linears = backbone.linear_layers()
    if backbone.quantization is not None:
        from llama_exp import quantization  # NumPy must not be imported with this module, which checks configs too

        deltas = {f"{path}/kernel": adapter.delta for path, adapter in adapters(backbone).items()}
        quantization.dequantize(backbone, deltas)
        return
    for path, adapter in adapters(backbone).items():
        kernel = linears[path].kernel
        kernel.assign(ops.cast(ops.cast(kernel.value, "float32") + adapter.delta(), kernel.dtype))
        linears[path].attach(None)
    for variable in backbone.weights:
        variable.trainable = True
    backbone.lora_arguments = None


def base_digest(backbone) -> str:
    """The digest (see `weights_digest`) of every variable that is not an adapter's."""
    from llama_exp.models.digest import weights_digest

    own = set(adapter_variables(backbone))
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
    from keras import ops

    from llama_exp.formats import peft

    found = adapters(backbone)
    if not found:
        raise ValueError("The backbone has no adapters to save. Call enable_lora first.")
    matrices = {
        path: (ops.convert_to_numpy(adapter.lora_a.value), ops.convert_to_numpy(adapter.lora_b.value))
        for path, adapter in found.items()
    }
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
    from llama_exp.formats.adapter import listed

    own, wanted = set(adapter.ranks), set(paths)
    if own == wanted:
        return
    missing = [f"not adapted: {path}" for path in adapter.ranks if path not in wanted]
    missing += [f"not in the file: {path}" for path in paths if path not in own]
    targets = ",".join(_targets(list(adapter.ranks), linear_paths))
    yield Problem(
        f"the adapter in {adapter.path} has {len(own)} layers, the model adapts {len(wanted)}",
        "lora.targets",
        listed(missing),
        f"set lora.targets=[{targets}]",
    )


def _targets(paths: list[str], linear_paths: list[str]) -> list[str]:
    """Names of layers where they mean exactly `paths`, whole paths otherwise."""
    names = list(dict.fromkeys(path.rpartition("/")[2] for path in paths))
    return names if set(matching_paths(names, linear_paths)) == set(paths) else paths


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
        _attach(backbone, {path: (rank, adapter.scale_of(path)) for path, rank in adapter.ranks.items()}, dropout)
        backbone.lora_arguments = _arguments(adapter, dropout)
    for path, layer in adapters(backbone).items():
        layer.lora_a.assign(matrices[path][0])
        layer.lora_b.assign(matrices[path][1])


def _arguments(adapter: Adapter, dropout: float) -> dict:
    """What `save_adapter` writes about all adapters at once."""
    arguments = {"rank": adapter.rank, "alpha": adapter.alpha, "dropout": dropout, "use_rslora": adapter.use_rslora}
    alpha_pattern = {path: alpha for path, alpha in adapter.alphas.items() if alpha != adapter.alpha}
    return arguments | ({"alpha_pattern": alpha_pattern} if alpha_pattern else {})


def _require_same_adapters(adapter: Adapter, present: Mapping, linear_paths: list[str]) -> None:
    from llama_exp.formats.adapter import listed

    problems = list(other_layers(adapter, present, linear_paths))
    wanted = {path: (layer.rank, layer.scale) for path, layer in present.items()}
    offered = {path: (rank, adapter.scale_of(path)) for path, rank in adapter.ranks.items()}
    differing = [path for path in offered if wanted.get(path, offered[path]) != offered[path]]
    if differing:
        found = listed([f"{path}: {offered[path]} (model: {wanted[path]})" for path in differing])
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
