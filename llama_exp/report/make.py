"""From runs on the disk to a report. Imports no framework."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from llama_exp.errors import InputError
from llama_exp.protocol import judge
from llama_exp.report.comparisons import choose_baseline, compare
from llama_exp.report.contents import Figure, Group, Options, Report, ReportedRun
from llama_exp.report.cost import add_up, list_costs, read_sweeps
from llama_exp.report.curves import list_curves
from llama_exp.report.effects import list_effects, make_coordinates
from llama_exp.report.figures import choose_figure, list_figures
from llama_exp.report.grouping import find_keys, group_runs, list_stated
from llama_exp.report.groups import BEST_RULE, rank_groups
from llama_exp.report.items import compare_items
from llama_exp.report.statement import write_statement
from llama_exp.results import RunResult
from llama_exp.results.decisive import canonical, keep_decisive
from llama_exp.sweeps.record import ABSENT


def make_report(results: Sequence[RunResult], options: Options) -> Report:
    """Everything that a report on some runs says.

    Args:
        results: of `results.load_runs`, at least one.
        options: what was asked for.

    Raises:
        ConfigError: the runs have no such figure or baseline.
        InputError: a record is damaged.
    """
    if not results:
        raise InputError.about("report", "there is nothing to report", "no run", "give the folder of a run or a sweep")
    main = choose_figure(results, options.figure)
    figures = list_figures(results, main)
    members = group_runs(results)
    keys = find_keys([results[indices[0]].values for indices in members], list_stated(results))
    runs, groups = rank_groups(results, members, keys, figures, options.confidence)
    claims = tuple(judge(results))
    choice = choose_baseline(results, runs, groups, keys, options.baseline)
    comparisons = compare(runs, groups, main, choice, options.confidence)
    if claims and options.baseline is None:  # claims say what is compared; the first run of many stages is no baseline
        comparisons = None
    if comparisons is not None:
        items = compare_items(results, comparisons.rows, options.confidence)
        comparisons = dataclasses.replace(comparisons, items=items)
    costs, sweeps = list_costs(results), read_sweeps(results)
    total = add_up(results, runs, costs, sweeps)
    return Report(
        title=_make_title(results),
        figure=main,
        figures=figures,
        confidence=options.confidence,
        keys=keys,
        runs=runs,
        groups=groups,
        comparisons=comparisons,
        curves=list_curves(results, runs),
        effects=list_effects(runs, groups, keys, main),
        coordinates=make_coordinates(runs, keys, main),
        costs=costs,
        total_cost=total,
        statement=write_statement(results, runs, groups, keys, main, comparisons, total, sweeps, options.confidence),
        best_rule=BEST_RULE,
        notes=tuple(_list_notes(results, runs, groups, main, bool(comparisons or claims))),
        common=_find_common(results),
        claims=claims,
    )


def _make_title(results: Sequence[RunResult]) -> str:
    names = list(dict.fromkeys(str(run.config.get("name", run.folder.name)) for run in results))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _find_common(results: Sequence[RunResult]) -> dict[str, object]:
    """What decides and is the same in all runs."""
    first, *others = (keep_decisive(run.values) for run in results)
    same = {key: canonical(value) for key, value in first.items()}
    for values in others:
        same = {key: text for key, text in same.items() if canonical(values.get(key, ABSENT)) == text}
    return {key: first[key] for key in same}


def _list_notes(
    results: Sequence[RunResult],
    runs: Sequence[ReportedRun],
    groups: Sequence[Group],
    figure: Figure,
    is_compared: bool,
) -> Iterator[str]:
    counted = [group for group in groups if group.runs]
    if not counted:
        yield "No run has finished with this figure, so that there is nothing to rank."
    elif max(len(group.runs) for group in counted) == 1:
        yield "Every config was run with one seed: differences may be chance, and no interval can be given."
    elif any(len(group.runs) == 1 for group in counted):
        yield "Configs with one seed have no interval."
    if len(counted) > 1 and not is_compared and max(len(group.runs) for group in counted) > 1:
        yield "No config shares two seeds with that of the first run: name another baseline with --baseline to compare."
    diverged = [
        run for run in runs if run.reason is not None and figure.path in run.figures and run.status == "finished"
    ]
    if unlike := [run.number for run in diverged if "newer" not in str(run.reason)]:
        yield (
            f"{figure.path} of run {', '.join(map(str, unlike))} is not finite: the means of their configs leave them"
            " out and look better than these configs are."
        )
    validation = {_fingerprint(run, "validation") for run in results} - {None}
    if len(validation) > 1 and figure.path.startswith("validation"):
        yield (
            f"The runs were validated on {len(validation)} different sets of rows, which makes {figure.path} hard to"
            " compare."
        )
    for group in counted:
        if len({_fingerprint(results[number - 1], "train") for number in group.runs} - {None}) > 1:
            yield f"The runs of config {group.number} ({group.label}) were trained on different data, under one config."


def _fingerprint(run: RunResult, split: str) -> str | None:
    dataset = run.record.get("dataset")
    section = dataset.get(split) if isinstance(dataset, dict) else None
    return str(section["fingerprint"]) if isinstance(section, dict) and "fingerprint" in section else None
