"""The verdict on each claim that runs have stated.

    confirmed      the whole interval lies in the expected range
    contradicted   all of it lies outside
    not seen       neither, or the runs do not answer; the reason says which

The claims are those in the runs' own config.yaml, as they stood when each run began.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_exp.config.check.claims import find_problems_of_claim
from llama_exp.config.check.typed import list_keys
from llama_exp.config.schema.protocol import ClaimConfig
from llama_exp.protocol.estimators import ESTIMATORS
from llama_exp.protocol.obtained import NotSeen, Obtained
from llama_exp.protocol.prepare import (
    Candidate,
    count_runs,
    drop_repeated,
    find_arms,
    list_unusable,
    prepare,
    tell_some,
)
from llama_exp.protocol.stated import Experiment, list_experiments
from llama_exp.results import RunResult, SweepResult, holds_run, read_sweep


class Verdict(enum.Enum):
    """What runs say of a claim."""

    confirmed = "confirmed"
    contradicted = "contradicted"
    not_seen = "not seen"


@dataclass(frozen=True)
class ClaimResult:
    """A claim and what came of it.

    experiment: that states it. name: of the claim. claim: as it was stated. verdict: and reason, a sentence. obtained:
    None: the runs do not answer. runs: indices of those in it. missing: runs that it lacks, a few words each.
    """

    experiment: Experiment
    name: str
    claim: ClaimConfig
    verdict: Verdict
    reason: str
    obtained: Obtained | None
    runs: tuple[int, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge(runs: Sequence[RunResult]) -> list[ClaimResult]:
    """The claims of all experiments that the runs belong to, in the order in which they are stated.

    Args:
        runs: of `results.load_runs`.

    Raises:
        InputError: a run's record is damaged.
    """
    sweeps = [read_sweep(folder) for folder in dict.fromkeys(run.place.sweep_dir for run in runs if run.place)]
    return [
        _judge_claim(experiment, name, claim, runs, sweeps)
        for experiment in list_experiments(runs)
        for name, claim in experiment.protocol.claims.items()
    ]


def decide(obtained: Obtained, low: float | None, high: float | None) -> tuple[Verdict, str]:
    """The verdict on an interval, and its reason.

    Args:
        obtained: with the interval.
        low: of the expected range; None: it is open there.
        high: the same.
    """
    first, last = -math.inf if low is None else low, math.inf if high is None else high
    if first <= obtained.low and obtained.high <= last:
        return Verdict.confirmed, "the whole interval lies in the expected range"
    if obtained.high < first or obtained.low > last:
        return Verdict.contradicted, "the whole interval lies outside of the expected range"
    if math.isinf(obtained.high) or math.isinf(obtained.low):
        return Verdict.not_seen, "the interval is open, and reaches beyond the expected range"
    return Verdict.not_seen, "a part of the interval lies outside of the expected range"


def _judge_claim(
    experiment: Experiment, name: str, claim: ClaimConfig, runs: Sequence[RunResult], sweeps: Sequence[SweepResult]
) -> ClaimResult:
    members = [Candidate(number, runs[number]) for number in experiment.list_runs(claim.stages)]
    missing: list[str] = []
    candidates: list[Candidate] = []
    try:
        _require_sound(experiment, name, claim)
        candidates = drop_repeated([one for one in members if find_arms(claim, one.run.values)])
        missing += _list_unbegun(claim, members, sweeps, {run.folder for run in runs})
        missing += list_unusable(claim, candidates)
        _require_all(experiment, claim, candidates, missing)
        prepared = prepare(claim, candidates)
        obtained = ESTIMATORS[claim.estimator](prepared.question)
    except NotSeen as reason:
        numbers = tuple(one.number for one in candidates)
        return ClaimResult(experiment, name, claim, Verdict.not_seen, f"{reason}.", None, numbers, tuple(missing))
    verdict, reason_of = decide(obtained, claim.expected.low, claim.expected.high)
    notes = (*prepared.notes, *obtained.notes)
    return ClaimResult(experiment, name, claim, verdict, f"{reason_of}.", obtained, prepared.runs, (), notes)


def _require_sound(experiment: Experiment, name: str, claim: ClaimConfig) -> None:
    """Raises `NotSeen` for a claim that this version does not know, such as one of another version's estimator."""
    keys = {*list_keys(), *experiment.keys}
    found = next(find_problems_of_claim(name, claim, experiment.protocol.stages, keys), None)
    if found is not None:
        raise NotSeen(f"{found.where} {found.what}: {found.found}")


def _require_all(
    experiment: Experiment, claim: ClaimConfig, candidates: Sequence[Candidate], missing: Sequence[str]
) -> None:
    """Raises `NotSeen` for the first of: a stage without runs, runs that are missing, no runs at all."""
    if absent := [stage for stage in claim.stages if not experiment.list_runs([stage])]:
        raise NotSeen(f"no run of stage {' and '.join(absent)} is here")
    if missing:
        raise NotSeen(f"{count_runs(missing)} missing: {tell_some(missing)}")
    if not candidates:
        raise NotSeen("no run has the values that its filter asks for")


def _list_unbegun(
    claim: ClaimConfig, members: Sequence[Candidate], sweeps: Sequence[SweepResult], here: set[Path]
) -> Iterator[str]:
    """Jobs of the members' sweeps that the claim counts and that are not among the runs: choosing runs would decide."""
    siblings = {one.run.place.sweep_dir: one.run for one in members if one.run.place is not None}
    for sweep in sweeps:
        for folder, place in sweep.places if sweep.folder in siblings else ():
            values = {**siblings[sweep.folder].values, **place.differs}
            if folder not in here and find_arms(claim, values):
                why = "not among these runs" if holds_run(folder) else "not begun"
                yield f"{place.number}: {' '.join(place.overrides)} ({why})"
