"""Each group against a baseline, run by run of the same seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from llama_exp.config.check.nearest import suggest
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.latest import without_latest
from llama_exp.limits.figures import Direction
from llama_exp.report.contents import Comparison, Comparisons, Figure, Group, Key, ReportedRun
from llama_exp.report.grouping import format_setting, label_group
from llama_exp.results import RunResult
from llama_exp.results.decisive import canonical
from llama_exp.results.statistics import (
    LEAST_FOR_BOOTSTRAP,
    bootstrap_mean,
    count_share,
    estimate,
    find_sign_flip_p,
    find_smallest_p,
    hold_family,
)

USUAL_LIMIT = 0.05
ASKED = "asked for with --baseline"
Choice = tuple[str, str, Mapping[int, int]]  # label, by whom, group -> its baseline


def compare(
    runs: Sequence[ReportedRun],
    groups: Sequence[Group],
    figure: Figure,
    choice: Choice,
    confidence: float,
) -> Comparisons | None:
    """All groups that have a baseline against it; None: no two pairs can be compared, and nobody asked for it."""
    label, chosen, baselines = choice
    rows = [
        _compare(group, groups[baselines[group.number] - 1], runs, figure, confidence)
        for group in groups
        if group.number in baselines and group.runs
    ]
    if chosen != ASKED and all(len(row.pairs) < 2 for row in rows):  # of one pair each: nothing is shown
        return None
    tested = [index for index, row in enumerate(rows) if row.p is not None]
    held = hold_family([rows[index].p or 0.0 for index in tested])
    for index, p in zip(tested, held, strict=True):
        rows[index] = dataclasses.replace(rows[index], p_holm=p)
    without = [group.number for group in groups if group.runs and group.number not in {*baselines, *baselines.values()}]
    return Comparisons(label, chosen, tuple(rows), tuple(_list_notes(rows, len(tested), without)))


def choose_baseline(
    results: Sequence[RunResult],
    runs: Sequence[ReportedRun],
    groups: Sequence[Group],
    keys: Sequence[Key],
    asked: str | None,
) -> Choice:
    """Which group each group is compared with.

    Where values are asked for that several groups have, each of the others is compared with the one of these that is
    equal to it in all other keys.

    Args:
        results: the runs as they were read.
        runs: the same, as the report shows them.
        groups: of these.
        keys: whose values tell the groups apart.
        asked: `key=value,...`, or the folder of a run; None: the config of the first run.

    Raises:
        ConfigError: no group is meant.
    """
    if asked is None:
        first = next((run for run in runs if run.reason is None), None)
        if first is None:
            return "", "", {}
        group = groups[first.group - 1]
        chosen = "the config of the first run, because no other was asked for with --baseline"
        return group.label, chosen, _against({group.number}, (), groups)
    if "=" not in asked or Path(asked).exists():
        group = groups[_find_run(runs, asked).group - 1]
        return group.label, ASKED, _against({group.number}, (), groups)
    return _choose_by_values(results, groups, keys, asked)


def _choose_by_values(results: Sequence[RunResult], groups: Sequence[Group], keys: Sequence[Key], asked: str) -> Choice:
    """Of `key=value,...`."""
    wanted = _parse(asked, [key.path for key in keys], results)
    meant = {
        group.number
        for group in groups
        if all(canonical(results[_any_run(group) - 1].values.get(k)) == canonical(v) for k, v in wanted.items())
    }
    if not meant or (len(meant) == len(groups) > 1):
        what = "all configs have these values" if meant else "no run has these values"
        known = ", ".join(f"{key.path}={'|'.join(map(format_setting, key.values))}" for key in keys)
        action = f"choose among {known}" if known else "leave it out: all runs have the same config"
        raise ConfigError(Problem(what, "--baseline", asked, action))
    first = groups[min(meant) - 1]
    shared = label_group(first.values, [key for key in keys if key.path in wanted])
    return shared if len(meant) > 1 else first.label, ASKED, _against(meant, [*wanted], groups)


def _against(meant: set[int], wanted: Sequence[str], groups: Sequence[Group]) -> dict[int, int]:
    """Group -> the one of the meant groups that it is compared with."""

    def others(group: Group) -> str:
        return str([(path, canonical(value)) for path, value in group.values.items() if path not in wanted])

    if len(meant) == 1:
        return {group.number: min(meant) for group in groups if group.number not in meant}
    by_others = {others(groups[number - 1]): number for number in meant}
    return {
        group.number: by_others[others(group)]
        for group in groups
        if group.number not in meant and others(group) in by_others
    }


def _compare(
    group: Group, baseline: Group, runs: Sequence[ReportedRun], figure: Figure, confidence: float
) -> Comparison:
    own, others = (
        {runs[n - 1].seed: n for n in part.runs if runs[n - 1].seed is not None} for part in (group, baseline)
    )
    seeds = sorted(seed for seed in own if seed in others and seed is not None)
    pairs = tuple((own[seed], others[seed]) for seed in seeds)
    differences = tuple(runs[a - 1].figures[figure.path] - runs[b - 1].figures[figure.path] for a, b in pairs)
    n = len(pairs)
    p, is_exact = find_sign_flip_p(differences) if n else (None, True)
    sign = 1.0 if figure.direction is Direction.minimize else -1.0
    wins = sum(sign * difference < 0 for difference in differences)
    return Comparison(
        group=group.number,
        baseline=baseline.number,
        figure=figure.path,
        seeds=tuple(seeds),
        pairs=pairs,
        differences=differences,
        difference=estimate(differences, confidence) if n else None,
        p=p,
        p_is_exact=is_exact,
        p_holm=None,
        smallest_p=find_smallest_p(n) if n else None,
        better=count_share(wins, n, confidence) if n else None,
        bootstrap=bootstrap_mean(differences, confidence),
        unpaired=tuple(sorted(seed for seed in set(own) ^ set(others) if seed is not None)),
        limits=tuple(_list_limits(n)),
    )


def _list_limits(n: int) -> list[str]:
    if n == 0:
        return ["No seed was run with both, so that nothing can be paired."]
    found = []
    if n == 1:
        found.append("One pair has no interval, and its p is 1 whatever the difference.")
    elif find_smallest_p(n) > USUAL_LIMIT:
        found.append(f"{n} pairs cannot give a p below {find_smallest_p(n):.3g}, however large the difference is.")
    if 1 < n < LEAST_FOR_BOOTSTRAP:
        found.append(f"{n} pairs are too few for a bootstrap, which needs about {LEAST_FOR_BOOTSTRAP}.")
    return found


def _list_notes(rows: Sequence[Comparison], tested: int, without: Sequence[int]) -> list[str]:
    notes = []
    reachable = [row.smallest_p * tested for row in rows if row.smallest_p is not None]
    if tested > 1:
        notes.append(f"p (Holm) is corrected for all {tested} comparisons of this report.")
        if min(reachable) > USUAL_LIMIT:
            least = f"{min(1.0, min(reachable)):.3g}"
            notes.append(
                f"With so few pairs and {tested} comparisons the smallest corrected p cannot be below {least}."
            )
    if not rows:
        notes.append("No config differs from the baseline in these keys alone, so that nothing can be compared.")
    elif without:
        listed = ", ".join(map(str, without))
        notes.append(f"No baseline is equal in the other keys to config {listed}, which is therefore not compared.")
    return notes


def _find_run(runs: Sequence[ReportedRun], asked: str) -> ReportedRun:
    folder = Path(without_latest(asked)).expanduser().absolute()
    found = next((run for run in runs if run.folder == folder), None)
    if found is None:
        action = "give key=value, or the folder of one of the runs of this report"
        raise ConfigError(Problem("is none of the report's runs", "--baseline", asked, action))
    return found


def _parse(asked: str, columns: Sequence[str], results: Sequence[RunResult]) -> dict[str, Any]:
    """Dotted key -> value; a key may be given by its end, `rank=8`."""
    known = dict.fromkeys(key for run in results for key in run.values)
    wanted = {}
    for part in _split(asked):
        name, _, text = part.partition("=")
        name = name.strip()
        ends = [key for key in (*columns, *known) if key == name or key.endswith(f".{name}")]
        exact = [key for key in ends if key == name] or ends
        if not exact:
            action = suggest(name, columns or known, "keys")
            raise ConfigError(Problem("the runs have no such key", "--baseline", name, action))
        try:
            wanted[exact[0]] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(Problem("is no value", "--baseline", part, "write it as in config.yaml")) from error
    return {key: _as_number(value) for key, value in wanted.items()}


def _as_number(value: Any) -> Any:
    """1e-3, which YAML 1.1 takes for a text, is a number on a command line."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _split(asked: str) -> list[str]:
    """At commas that begin another `key=`."""
    parts: list[str] = []
    for piece in asked.split(","):
        if "=" in piece or not parts:
            parts.append(piece)
        else:
            parts[-1] += f",{piece}"
    return parts


def _any_run(group: Group) -> int:
    return (*group.runs, *group.left_out)[0]
