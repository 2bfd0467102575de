"""Which runs are the same experiment with another seed, and in which keys the others differ."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama_exp.report.contents import Key, Scale
from llama_exp.results import RunResult
from llama_exp.results.decisive import canonical, find_setting, keep_decisive, name_config
from llama_exp.sweeps.record import ABSENT, key_of

_LOG_FROM = 10.0  # largest value over smallest, from which an axis is logarithmic
_Values = Mapping[str, Any]


def group_runs(runs: Sequence[RunResult]) -> list[list[int]]:
    """Indices of runs whose config is equal but for the seed and for what is not science; in order of the first."""
    groups: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(name_config(run.values), []).append(index)
    return list(groups.values())


def find_keys(configs: Sequence[_Values], stated: Iterable[str]) -> tuple[Key, ...]:
    """The keys in which configs differ, as columns.

    Keys that nobody stated and that change exactly when another does follow it and are no column: with a longer run its
    warm-up gets longer, with a larger model most of its section changes.

    Args:
        configs: of one run of each group, by dotted key.
        stated: keys that command lines name.
    """
    patterns: dict[str, tuple[int, ...]] = {}
    decisive = [keep_decisive(config) for config in configs]
    for path in dict.fromkeys(key for config in decisive for key in config):
        texts = [canonical(config.get(path, ABSENT)) for config in decisive]
        order = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        if len(order) > 1:
            patterns[path] = tuple(order[text] for text in texts)
    named = set(stated) & set(patterns)
    leaders: dict[tuple[int, ...], str] = {}
    for path in sorted(patterns, key=lambda path: path not in named):  # stated ones lead
        leaders.setdefault(patterns[path], path)
    columns = [path for path in patterns if path in named or leaders[patterns[path]] == path]
    labels = shorten_labels(columns)
    return tuple(
        _make_key(
            path,
            labels[path],
            [find_setting(config, path) for config in configs],
            tuple(other for other in patterns if other not in columns and leaders[patterns[other]] == path),
        )
        for path in columns
    )


def list_stated(runs: Iterable[RunResult]) -> set[str]:
    """Keys that the runs' command lines set."""
    words = (word for run in runs for word in _split(run.command))
    return {key_of(word) for word in words if "=" in word and not word.startswith("-")}


def shorten_labels(paths: Sequence[str]) -> dict[str, str]:
    """Path -> its shortest end, in whole words, that no other of the paths has."""
    labels = {}
    for path in paths:
        parts = path.split(".")
        ends = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
        taken = [other for other in paths if other != path]
        labels[path] = next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in taken)), path)
    return labels


def label_group(values: _Values, keys: Iterable[Key]) -> str:
    """`rank=8 learning_rate=0.001`; `all runs` where they do not differ."""
    return " ".join(f"{key.label}={format_setting(values[key.path])}" for key in keys) or "all runs"


def format_setting(value: Any) -> str:
    """A value of a key as YAML has it: null, true, 0.001, [query, value]."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(format_setting, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {format_setting(entry)}" for key, entry in value.items()) + "}"
    return "-" if value == ABSENT else str(value)


def _make_key(path: str, label: str, values: Sequence[Any], follows: tuple[str, ...]) -> Key:
    different = list({canonical(value): value for value in values}.values())
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in different):
        return Key(path, label, Scale.categories, tuple(different), follows)
    different.sort()
    return Key(path, label, Scale.log if _is_by_factors(different) else Scale.linear, tuple(different), follows)


def _is_by_factors(values: Sequence[float]) -> bool:
    """Whether sorted numbers span decades, or each is the one before times the same factor: 4, 8, 16."""
    if values[0] <= 0:
        return False
    factors = [following / value for value, following in itertools.pairwise(values)]
    is_geometric = len(factors) > 1 and max(factors) <= min(factors) * 1.01
    return values[-1] / values[0] >= _LOG_FROM or is_geometric


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # somebody else's record: a quote is left open
        return []
