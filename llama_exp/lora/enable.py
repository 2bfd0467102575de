"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685) of a backbone.

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
from collections.abc import Mapping, Sequence

from llama_exp.limits import raise_first
from llama_exp.limits.lora import ADAPTERS
from llama_exp.lora.targets import layer_problems, matching_paths, values_by_path


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
        targets: see `lora.targets.matching_paths`.
        rank_pattern: target -> rank of the layers it means, where that is another than `rank`.
        alpha_pattern: target -> alpha, likewise.
        use_dora: a trainable magnitude for every output; see `lora.dora`.

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
    stated = values_by_path(alpha_pattern, list(ranks), alpha)
    alphas = {path: ranks[path] if own is None else own for path, own in stated.items()}
    scales = {path: compute_scale(ranks[path], alphas[path], use_rslora) for path in ranks}
    attach(backbone, ranks, scales, dropout, use_dora)
    alpha = rank if alpha is None else alpha
    backbone.lora_arguments = summarize_arguments(rank, alpha, alphas, dropout, use_rslora, use_dora)


def summarize_arguments(rank, alpha, alphas: Mapping[str, float], dropout, use_rslora, use_dora) -> dict:
    """What `lora_arguments` of a backbone says about all its adapters at once, and a file of them too."""
    arguments = {"rank": rank, "alpha": alpha, "dropout": dropout, "use_rslora": use_rslora, "use_dora": use_dora}
    alpha_pattern = {path: own for path, own in alphas.items() if own != alpha}
    return arguments | ({"alpha_pattern": alpha_pattern} if alpha_pattern else {})


def attach(backbone, ranks: Mapping[str, int], scales: Mapping[str, float], dropout: float, use_dora: bool):
    """Freezes `backbone` and adds adapters to the linear layers of `ranks`, with first values.

    Args:
        backbone: without adapters.
        ranks: by path of a linear layer.
        scales: likewise, what the product of the matrices is multiplied by.
        dropout: probability in [0, 1), on the adapters' input, in training.
        use_dora: `DoraAdapter` instead of `LoraAdapter`.
    """
    import keras

    from llama_exp.lora.adapter import POLICY_OF_COMPUTE_DTYPE, LoraAdapter
    from llama_exp.lora.dora import DoraAdapter

    for variable in backbone.weights:
        variable.trainable = False
    linears, kind = backbone.linear_layers(), DoraAdapter if use_dora else LoraAdapter
    for path, rank in ranks.items():
        linear = linears[path]
        policy = POLICY_OF_COMPUTE_DTYPE[linear.compute_dtype]
        options = (rank, linear.output_dim, scales[path], dropout, backbone.seed)
        adapter = kind(*options, dtype=policy, name="adapter")
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


def describe(backbone) -> dict | None:
    """The adapters of `backbone` as plain data, without their values: `lora_arguments`, and the rank of each layer.

    None without adapters.
    """
    found = adapters(backbone)
    if not found:
        return None
    return backbone.lora_arguments | {"ranks": {path: adapter.rank for path, adapter in found.items()}}


def restore(backbone, described: Mapping) -> None:
    """Gives `backbone`, which has none, the adapters that `describe` told of, with first values.

    Raises:
        ValueError: the description is none, or one of another architecture.
    """
    from llama_exp.formats.adapter import compute_scale

    try:
        arguments = {key: value for key, value in described.items() if key != "ranks"}
        ranks, pattern = dict(described["ranks"]), arguments.get("alpha_pattern", {})
        alphas = {path: pattern.get(path, arguments["alpha"]) for path in ranks}
        scales = {path: compute_scale(ranks[path], alphas[path], arguments["use_rslora"]) for path in ranks}
        attach(backbone, ranks, scales, arguments["dropout"], arguments["use_dora"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"adapters={str(described)[:200]} describes no adapters of this backbone: {error}") from error
    backbone.lora_arguments = arguments


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
        kernel.assign(ops.cast(merge_kernel(linears[path].float_kernel(), *own), kernel.dtype))
        linears[path].attach(None)
    backbone.unfreeze()
    backbone.lora_arguments = None


def base_digest(backbone) -> str:
    """The digest (see `weights_digest`) of every variable that is not an adapter's."""
    from llama_exp.backend.digest import weights_digest

    own = {variable.path for adapter in adapters(backbone).values() for variable in adapter.weights}
    return weights_digest(variable for variable in backbone.weights if variable.path not in own)
