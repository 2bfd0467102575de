"""What runs cost, with what failed and what was done again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_exp.report.contents import ReportedRun
from llama_exp.report.spending import Cost, TotalCost
from llama_exp.results import Attempt, RunResult, SweepResult, holds_run, read_sweep
from llama_exp.results.spent import count_flops, count_tokens, find_branched, find_origin

_FAILED = "failed"


def list_costs(results: Sequence[RunResult]) -> tuple[Cost, ...]:
    """Of each run, numbered from 1 on."""
    return tuple(_find_cost(number, run) for number, run in enumerate(results, start=1))


def read_sweeps(results: Iterable[RunResult]) -> list[SweepResult]:
    """The sweeps that the runs are of, in their order; raises InputError for a damaged record."""
    return [read_sweep(folder) for folder in dict.fromkeys(run.place.sweep_dir for run in results if run.place)]


def add_up(
    results: Sequence[RunResult], runs: Sequence[ReportedRun], costs: Sequence[Cost], sweeps: Sequence[SweepResult]
) -> TotalCost:
    """All together, with attempts at jobs that left no run folder, of sweeps whose other jobs are all here."""
    outside = _list_outside({run.folder for run in results}, sweeps)
    failed = [attempt for attempt in outside if attempt.state == _FAILED]
    known = [cost for cost in costs if cost.seconds is not None]
    flops = [cost.flops for cost in costs]
    origins = [origin for run in results if (origin := find_origin(run))]
    return TotalCost(
        runs=len(costs),
        attempts=sum(cost.attempts for cost in costs) + len(outside),
        failed_attempts=sum(cost.failed_attempts for cost in costs) + len(failed),
        tokens=sum(cost.tokens or 0 for cost in costs),
        flops=None if None in flops else sum(number or 0.0 for number in flops),
        seconds=sum(cost.seconds or 0.0 for cost in known) + _add_seconds(outside),
        is_least=any(cost.is_least for cost in costs) or any(attempt.seconds is None for attempt in outside),
        failed_seconds=sum(cost.failed_seconds for cost in costs) + _add_seconds(failed),
        left_out_seconds=sum(cost.seconds or 0.0 for cost in known if runs[cost.run - 1].reason is not None),
        unknown=len(costs) - len(known),
        outside=len(outside),
        branched=len(origins),
        trunk_tokens=_count_trunk_tokens(origins, {str(run.record.get("config_hash")) for run in results}),
    )


def _find_cost(number: int, run: RunResult) -> Cost:
    attempts = run.place.attempts if run.place is not None else ()
    starts = run.record.get("starts")
    begun = max(len(attempts), len(starts) if isinstance(starts, list) else 0, 1)
    failed = [attempt for attempt in attempts if attempt.state == _FAILED]
    own_failure = not attempts and run.status == _FAILED
    seconds, is_least = _find_seconds(run, attempts, begun)
    return Cost(
        run=number,
        tokens=count_tokens(run),
        flops=count_flops(run),
        seconds=seconds,
        is_least=is_least,
        attempts=begun,
        failed_attempts=len(failed) + own_failure,
        failed_seconds=(seconds or 0.0) if own_failure else _add_seconds(failed),
    )


def _find_seconds(run: RunResult, attempts: Sequence[Attempt], begun: int) -> tuple[float | None, bool]:
    """Of all attempts, and whether it may have been more: of a run that was killed only its rows tell the time."""
    rows = [row["seconds"] for row in run.rows if isinstance(row.get("seconds"), int | float)]
    last = run.summary.get("seconds")
    in_training = max(max(rows) - find_branched(run, "seconds"), 0.0) if rows else None
    if attempts:
        known = [attempt.seconds for attempt in attempts if attempt.seconds is not None]
        if len(known) == begun:
            return sum(known), False
        return (max(sum(known), in_training or 0.0) if known or rows else None), True
    if isinstance(last, int | float) and begun == 1:
        return float(last), False
    found = [float(value) for value in (last, in_training) if isinstance(value, int | float)]
    return (max(found) if found else None), True


def _count_trunk_tokens(origins: Iterable[Mapping[str, Any]], here: set[str]) -> int:
    """Tokens of the runs that others branched from, each once, but for those that are here."""
    farthest: dict[str, int] = {}
    for origin in origins:
        known, tokens = str(origin.get("config_hash")), origin.get("tokens")
        if known not in here and isinstance(tokens, int):
            farthest[known] = max(tokens, farthest.get(known, 0))
    return sum(farthest.values())


def _list_outside(here: set[Path], sweeps: Sequence[SweepResult]) -> list[Attempt]:
    found = []
    for sweep in sweeps:
        without = [(folder, place) for folder, place in sweep.places if folder not in here]
        if not any(holds_run(folder) for folder, _ in without):
            found += [attempt for _, place in without for attempt in place.attempts]
    return found


def _add_seconds(attempts: Iterable[Attempt]) -> float:
    return sum(attempt.seconds or 0.0 for attempt in attempts)
