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
import math
import re
from collections.abc import Sequence
from pathlib import Path

from llama_exp.errors import InputError, Problem

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


def scale(rank: int, alpha: float, use_rslora: bool) -> float:
    """What multiplies A B: alpha / rank, or alpha / sqrt(rank) for rsLoRA (Kalajdzievski 2023, arXiv:2312.03732)."""
    return alpha / math.sqrt(rank) if use_rslora else alpha / rank


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
    alpha = rank if alpha is None else alpha
    linears = backbone.linear_layers()
    _check_arguments(linears, rank, alpha, dropout)
    problems = target_problems(targets, list(linears))
    if problems:
        raise ValueError("\n".join(str(problem) for problem in problems))
    _attach(backbone, matching_paths(targets, list(linears)), rank, scale(rank, alpha, use_rslora), dropout)
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


def _attach(backbone, paths, rank, scale, dropout):
    import keras

    from llama_exp.models.lora_adapter import POLICY_OF_COMPUTE_DTYPE, LoraAdapter

    for variable in backbone.weights:
        variable.trainable = False
    linears = backbone.linear_layers()
    for path in paths:
        linear = linears[path]
        policy = POLICY_OF_COMPUTE_DTYPE[linear.compute_dtype]
        adapter = LoraAdapter(rank, linear.output_dim, scale, dropout, dtype=policy, name="adapter")
        with contextlib.ExitStack() as scopes:
            for part in path.split("/"):
                scopes.enter_context(keras.name_scope(part))
            adapter.build((None, linear.kernel.shape[0]))
        linear.attach(adapter)
    if dropout > 0 and backbone.seed_generator is None:
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

    Numerics: the sum in float32, rounded once to the kernel's dtype.
    """
    from keras import ops

    linears = backbone.linear_layers()
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
    base = {"digest": base_digest(backbone), "variable_dtype": backbone.variable_dtype}
    peft.write(Path(folder), matrices, list(backbone.linear_layers()), backbone.lora_arguments, base)
    return base["digest"]


def load_adapter(backbone, folder: str | Path) -> None:
    """Gives `backbone` the adapters of a folder: creates them, or fills those that are there.

    Reads what `save_adapter` wrote and what PEFT writes for a Llama. Every tensor is used and every adapter filled.

    Raises:
        InputError: the folder is damaged, belongs to another architecture or base, or its rank, scale or layers are
            not those of the adapters that are there.
    """
    from llama_exp.formats import peft

    folder = Path(folder)
    matrices, arguments, base = peft.read(folder)
    _check_fit(backbone, folder, matrices, arguments)
    _check_base(backbone, folder, base)
    if not adapters(backbone):
        enable(backbone, **arguments, targets=[re.escape(path) for path in matrices])
    for path, adapter in adapters(backbone).items():
        adapter.lora_a.assign(matrices[path][0])
        adapter.lora_b.assign(matrices[path][1])


def _check_fit(backbone, folder, matrices, arguments):
    linears, present = backbone.linear_layers(), adapters(backbone)
    unknown = sorted(set(matrices) - set(linears))
    if unknown:
        action = (
            f"load it into the architecture it was trained on; this one has {len(backbone.transformer_layers)} layers"
        )
        raise InputError(Problem("the adapter names layers that the model lacks", str(folder), unknown[0], action))
    for path, (a_IR, b_RO) in matrices.items():
        expected = tuple(linears[path].kernel.shape)
        if (a_IR.shape[0], b_RO.shape[1]) != expected:
            found = f"{path}: A {a_IR.shape}, B {b_RO.shape}"
            action = f"load it into the architecture it was trained on; here the kernel has shape {expected}"
            raise InputError(Problem("the adapter's shapes do not fit", str(folder), found, action))
    if not present:
        return
    wanted = {path: (adapter.rank, adapter.scale) for path, adapter in present.items()}
    offered_scale = scale(arguments["rank"], arguments["alpha"], arguments["use_rslora"])
    offered = {path: (arguments["rank"], offered_scale) for path in matrices}
    if wanted != offered:
        found = f"{len(offered)} adapters of (rank, scale) {(arguments['rank'], offered_scale)}"
        action = f"the model has {len(wanted)} adapters of (rank, scale) {next(iter(wanted.values()))}; make them agree"
        raise InputError(Problem("the adapter does not fit the adapters of the model", str(folder), found, action))


def _check_base(backbone, folder, base):
    if base is None:
        logger.info("%s does not say which base weights it was trained on (as PEFT's own files)", folder)
    elif base["variable_dtype"] != backbone.variable_dtype:
        logger.warning(
            "%s was trained on %s weights; the base here is %s, so that it cannot be compared",
            folder,
            base["variable_dtype"],
            backbone.variable_dtype,
        )
    elif base["digest"] != base_digest(backbone):
        action = "load the base weights it was trained on first"
        raise InputError(
            Problem("the adapter was trained on other base weights", str(folder), json.dumps(base), action)
        )
