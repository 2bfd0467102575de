"""Runs and their groups over seeds: who is averaged, who is not and why, and the ranking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llama_exp.limits.figures import Direction
from llama_exp.report.contents import Figure, Group, Key, ReportedRun
from llama_exp.report.grouping import label_group
from llama_exp.results import RunResult, find_figure
from llama_exp.results.decisive import SEED, find_setting
from llama_exp.results.statistics import Estimate, estimate

FINISHED = "finished"
BEST_RULE = (
    "A mean is bold where it is the best of its column and its own interval excludes the mean of the second best; where"
    " only one seed was run there is no interval, and nothing is bold."
)


def rank_groups(
    runs: Sequence[RunResult],
    members: Sequence[Sequence[int]],
    keys: Sequence[Key],
    figures: Sequence[Figure],
    confidence: float,
) -> tuple[tuple[ReportedRun, ...], tuple[Group, ...]]:
    """The runs as a report shows them, in their order, and their groups, best first.

    Args:
        runs: all of the report.
        members: indices into `runs`, one list per group.
        keys: whose values tell the groups apart.
        figures: the first one ranks.
        confidence: of the intervals.
    """
    main, reasons = figures[0], _find_reasons(runs, members, figures[0])
    drafts = []
    for indices in members:
        values = {key.path: find_setting(runs[indices[0]].values, key.path) for key in keys}
        counted = sorted((i for i in indices if reasons[i] is None), key=lambda i: (_seed_order(runs[i]), i))
        left_out = [i for i in indices if reasons[i] is not None]
        drafts.append((counted, left_out, values, _estimate_all([runs[i] for i in counted], figures, confidence)))
    sign = 1.0 if main.direction is Direction.minimize else -1.0
    drafts.sort(key=lambda draft: sign * draft[3][main.path].mean if main.path in draft[3] else math.inf)
    best = _find_bold([draft[3] for draft in drafts], figures)
    groups, group_of = [], {}
    for number, (counted, left_out, values, estimates) in enumerate(drafts, start=1):
        group_of.update(dict.fromkeys([*counted, *left_out], number))
        best_in = tuple(path for path, index in best.items() if index == number - 1)
        names = [tuple(i + 1 for i in part) for part in (counted, left_out)]
        groups.append(Group(number, label_group(values, keys), values, names[0], names[1], estimates, best_in))
    reported = [
        _report_run(index, run, groups[group_of[index] - 1], figures, reasons[index]) for index, run in enumerate(runs)
    ]
    return tuple(reported), tuple(groups)


def seed_of(run: RunResult) -> int | None:
    """Its seed; None where the config has none."""
    seed = run.values.get(SEED)
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def _report_run(index: int, run: RunResult, group: Group, figures: Sequence[Figure], reason: str | None) -> ReportedRun:
    values = {figure.path: find_figure(run, figure.path) for figure in figures}
    return ReportedRun(
        number=index + 1,
        name=run.name,
        folder=run.folder,
        command=run.command,
        working_folder=str(run.record.get("working_folder", "")),
        status=run.status,
        seed=seed_of(run),
        group=group.number,
        values=group.values,
        figures={path: value for path, value in values.items() if value is not None},
        reason=reason,
    )


def _find_reasons(runs: Sequence[RunResult], members: Sequence[Sequence[int]], figure: Figure) -> dict[int, str | None]:
    """Index of a run -> why it is not averaged; None: it is."""
    reasons = {index: _find_reason(run, figure) for index, run in enumerate(runs)}
    for indices in members:
        newest: dict[int | None, int] = {}
        for index in (i for i in indices if reasons[i] is None):
            seed = seed_of(runs[index])
            before = newest.get(seed) if seed is not None else None
            if before is not None:
                older, newer = sorted((before, index), key=lambda i: str(runs[i].summary.get("finished", "")))
                reasons[older] = f"run {newer + 1} is newer and has the same config and seed"
                newest[seed] = newer
            else:
                newest[seed] = index
    return reasons


def _find_reason(run: RunResult, figure: Figure) -> str | None:
    if run.status == "running":
        return "it runs still, or was killed"
    if run.status != FINISHED:
        told = run.summary.get("reason")
        return f"{run.status}: {str(told).splitlines()[0]}" if told else run.status
    value = find_figure(run, figure.path)
    if value is None:
        return f"it has no {figure.path}"
    return None if math.isfinite(value) else f"{figure.path} is {value}"


def _estimate_all(runs: Sequence[RunResult], figures: Sequence[Figure], confidence: float) -> dict[str, Estimate]:
    found = {}
    for figure in figures:
        values = [find_figure(run, figure.path) for run in runs]
        numbers = [value for value in values if value is not None and math.isfinite(value)]
        if numbers:
            found[figure.path] = estimate(numbers, confidence)
    return found


def _find_bold(estimates: Sequence[Mapping[str, Estimate]], figures: Sequence[Figure]) -> dict[str, int]:
    """Path of a figure -> index of the group that `BEST_RULE` sets in bold."""
    bold = {}
    for figure in figures:
        have = [index for index, own in enumerate(estimates) if figure.path in own]
        sign = 1.0 if figure.direction is Direction.minimize else -1.0
        have.sort(key=lambda index: sign * estimates[index][figure.path].mean)
        if len(have) < 2:
            continue
        first, second = (estimates[index][figure.path] for index in have[:2])
        if first.low is not None and first.high is not None and not first.low <= second.mean <= first.high:
            bold[figure.path] = have[0]
    return bold


def _seed_order(run: RunResult) -> Any:
    seed = seed_of(run)
    return (seed is None, seed or 0)
