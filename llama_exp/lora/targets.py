"""Which linear layers a target means, and the ranks and alphas that patterns of targets give them.

    targets=[attention]  rank=8  rank_pattern={query: 16, transformer_layer_0/.*/value: 4}

        transformer_layer_0/self_attention/query               16
        transformer_layer_0/self_attention/key                  8
        transformer_layer_0/self_attention/value                4
        ...

Importing this module imports no framework: it also serves the check of a config.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from llama_exp.errors import Problem

Value = TypeVar("Value")  # a rank, or an alpha or None

ATTENTION = ("query", "key", "value", "attention_output")
MLP = ("feedforward_gate_dense", "feedforward_intermediate_dense", "feedforward_output_dense")
GROUPS = {"attention": ATTENTION, "mlp": MLP, "all-linear": (*ATTENTION, *MLP)}


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


def values_by_path(pattern: Mapping[str, Value], paths: Sequence[str], default: Value) -> dict[str, Value]:
    """The value of each of `paths`: that of the target of `pattern` which means it, else `default`.

    `pattern_problems` finds the patterns in which two targets disagree about a path.
    """
    return {path: next((pattern[t] for t in pattern if _means(t, path)), default) for path in paths}


def shortest_pattern(values: Mapping[str, float], default: float) -> dict[str, float]:
    """A pattern that gives `values` where they differ from `default`: names of layers where all of a name agree."""
    by_name: dict[str, set[float]] = {}
    for path, value in values.items():
        by_name.setdefault(_name(path), set()).add(value)
    return {
        _name(path) if len(by_name[_name(path)]) == 1 else path: value
        for path, value in values.items()
        if value != default
    }


def shortest_targets(paths: Sequence[str], linear_paths: Sequence[str]) -> list[str]:
    """Names of layers where they mean exactly `paths`, whole paths otherwise."""
    names = list(dict.fromkeys(_name(path) for path in paths))
    return names if set(matching_paths(names, linear_paths)) == set(paths) else list(paths)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def layer_problems(
    rank: int,
    targets: Sequence[str],
    patterns: Mapping[str, Mapping[str, float]],
    shapes: Mapping[str, tuple[int, int]],
) -> Iterator[Problem]:
    """What is wrong with adapters for a model of certain linear layers.

    Every target and every pattern names a layer, and no adapter is wider than its layer.

    Args:
        rank: of the layers that no pattern means.
        targets: of the adapters.
        patterns: `rank_pattern` and `alpha_pattern`, each target -> value.
        shapes: (inputs, outputs) of every linear layer by path.
    """
    paths = list(shapes)
    yield from target_problems(targets, paths)
    for key, pattern in patterns.items():
        yield from pattern_problems(key, pattern, targets, paths)
    ranks = values_by_path(patterns["rank_pattern"], matching_paths(targets, paths), rank)
    widest = max(ranks, key=lambda path: ranks[path] - min(shapes[path]), default=None)
    if widest is not None and ranks[widest] > min(shapes[widest]):
        inputs, outputs = shapes[widest]
        yield Problem(
            f"exceeds the size of a target: {widest} is {inputs} x {outputs}, so a larger rank adds nothing",
            "lora.rank" if ranks[widest] == rank else "lora.rank_pattern",
            f"rank={ranks[widest]:g}",
            f"give at most {min(inputs, outputs)}, or leave that layer out of lora.targets",
        )


def target_problems(targets: Sequence[str], paths: Sequence[str]) -> list[Problem]:
    """What is wrong with `targets` for a model whose linear layers have these `paths`; empty if nothing is."""
    names = [*GROUPS["all-linear"], *GROUPS]
    choices = _choices(names, paths)
    if not targets:
        return [Problem("no layer to adapt", "lora.targets", "[]", choices)]
    return [
        Problem("a target matches no linear layer", "lora.targets", target, _nearest(target, names, paths) + choices)
        for target in targets
        if not matching_paths([target], paths)
    ]


def pattern_problems(
    key: str, pattern: Mapping[str, float], targets: Sequence[str], paths: Sequence[str]
) -> Iterator[Problem]:
    """What is wrong with `lora.rank_pattern` or `lora.alpha_pattern`, whatever its values are.

    Args:
        key: rank_pattern or alpha_pattern.
        pattern: target -> value.
        targets: of the adapters.
        paths: of all linear layers.
    """
    adapted = matching_paths(targets, paths) or paths  # targets that mean nothing are a problem of their own
    names = [*dict.fromkeys(_name(path) for path in adapted)]
    names += [group for group in GROUPS if matching_paths([group], adapted)]
    meant = {target: matching_paths([target], adapted) for target in pattern}
    for target, own in meant.items():
        if own:
            continue
        if matching_paths([target], paths):
            action = f"add it to lora.targets, or leave it out of lora.{key}"
        else:
            action = _nearest(target, names, adapted) + _choices(names, adapted)
        yield Problem("a pattern matches no adapted layer", f"lora.{key}", f"{target}: {pattern[target]}", action)
    for one, other in itertools.combinations(pattern, 2):
        shared = [path for path in meant[one] if path in meant[other]]
        if shared and pattern[one] != pattern[other]:
            yield Problem(
                "two patterns give one layer different values",
                f"lora.{key}",
                f"{one}: {pattern[one]} and {other}: {pattern[other]} both mean {shared[0]}",
                "write patterns that share no layer",
            )


def _choices(names: Sequence[str], paths: Sequence[str]) -> str:
    return f"allowed: {', '.join(names)}, or a regular expression for whole paths such as {paths[0]}"


def _nearest(target: str, names: Sequence[str], paths: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(target, [*names, *paths], n=1, cutoff=0.0)
    return f"did you mean {nearest[0]}? " if nearest else ""
