"""From runs on the disk to a question for an estimator: which runs count, their numbers, their arms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_exp.config.schema.protocol import ClaimConfig
from llama_exp.limits.estimators import (
    AGAINST,
    AT_BEST,
    BEST_BY,
    BEST_OVER,
    COMMON,
    CONFIDENCE,
    ESTIMATORS,
    OF,
    PAIR_BY,
    RATE,
    split_direction,
)
from llama_exp.protocol.best import Choice, keep_best
from llama_exp.protocol.obtained import ALL, NotSeen, Observation, Question
from llama_exp.protocol.quantities import find_quantity, has_diverged
from llama_exp.results import RunResult
from llama_exp.results.decisive import SEED, canonical, name_config

Y = "y"
_STAGE = "protocol.stage"
_ABSENT = object()
_FINISHED = "finished"
_MOST_TOLD = 3


@dataclass(frozen=True)
class Candidate:
    """A run that a claim may count. number: its index among all."""

    number: int
    run: RunResult


@dataclass(frozen=True)
class Prepared:
    """question: for the estimator. runs: numbers of those in it. notes: what a reader must know, sentences."""

    question: Question
    runs: tuple[int, ...]
    notes: tuple[str, ...]


def list_filters(claim: ClaimConfig) -> dict[str, Mapping[str, Any]]:
    """Arm -> what its runs must have besides the claim's own filter; the one arm of an estimator without arms: {}."""
    has_arms = ESTIMATORS[claim.estimator].has_arms
    return {arm: claim.arguments[arm] for arm in (OF, AGAINST)} if has_arms else {ALL: {}}


def find_arms(claim: ClaimConfig, values: Mapping[str, Any]) -> list[str]:
    """The arms that a run with these config values is in; none where the claim does not count it."""
    if not _matches(values, claim.filter):
        return []
    return [arm for arm, wanted in list_filters(claim).items() if _matches(values, wanted)]


def drop_repeated(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One run of each config and seed in a stage: one that finished, the newest of several.

    The same run may stand in two stages, and each may be an arm.
    """
    found: dict[tuple[str, ...], Candidate] = {}
    for one in sorted(candidates, key=_rank):
        values = one.run.values
        found[name_config(values), canonical(values.get(SEED)), canonical(values.get(_STAGE))] = one
    return sorted(found.values(), key=lambda one: one.number)


def list_unusable(claim: ClaimConfig, candidates: Sequence[Candidate]) -> Iterator[str]:
    """What is missing in runs that the claim counts, a few words for each such run.

    A run that diverged has no final figures; where rates are compared it is the worst, and so lacks nothing.
    """
    names = list_quantities(claim)
    for one in candidates:
        if one.run.status != _FINISHED and not has_diverged(one.run):
            yield f"{one.run.name} ({one.run.status})"
            continue
        lacking = [name for argument, name in names.items() if _find_number(claim, one.run, argument, name) is None]
        if lacking:
            yield f"{one.run.name} (has no {' and no '.join(dict.fromkeys(lacking))})"


def list_quantities(claim: ClaimConfig) -> dict[str, str]:
    """Argument -> quantity that the claim asks of each run."""
    known = ESTIMATORS[claim.estimator]
    names = {name: str(claim.arguments.get(name, default)) for name, default in known.quantities.items()}
    if claim.arguments.get(BEST_OVER) is not None:
        names[BEST_BY] = split_direction(str(read_argument(claim, BEST_BY)))[0]
    return names


def prepare(claim: ClaimConfig, candidates: Sequence[Candidate]) -> Prepared:
    """The question that a claim asks of runs that lack nothing.

    Raises:
        NotSeen: an arm has no run, or runs diverged of which a number is needed.
    """
    names = list_quantities(claim)
    arms: dict[str, list[Candidate]] = {arm: [] for arm in list_filters(claim)}
    for one in candidates:
        for arm in find_arms(claim, one.run.values):
            arms[arm].append(one)
    if empty := [arm for arm, members in arms.items() if not members]:
        raise NotSeen(f"no run is in arm {' and '.join(empty)}")
    observed = {arm: [_observe(claim, names, one) for one in members] for arm, members in arms.items()}
    notes: list[str] = []
    over = claim.arguments.get(BEST_OVER)
    if over is not None:
        settings = {one.number: one.run.values.get(over) for one in candidates}
        direction = split_direction(str(read_argument(claim, BEST_BY)))[1]
        choice = Choice(str(over), direction, names, list_pair_keys(claim))
        for arm, of_arm in observed.items():
            observed[arm], told = keep_best(arm, of_arm, choice, settings)
            notes += told
    used = {one.run for of_arm in observed.values() for one in of_arm}
    diverged = [one.run.name for one in candidates if one.number in used and has_diverged(one.run)]
    if diverged and RATE not in names:
        raise NotSeen(f"runs diverged that no rate comparison leaves out: {tell_some(diverged)}")
    known = ESTIMATORS[claim.estimator]
    counts = {name: int(claim.arguments.get(name, default)) for name, default in known.counts.items()}
    answering = {arm: tuple(members) for arm, members in observed.items()}
    question = Question(answering, names, counts, float(read_argument(claim, CONFIDENCE)))
    return Prepared(question, tuple(sorted(used)), tuple(notes))


def count_runs(texts: Sequence[str]) -> str:
    """`1 run is`, `3 runs are`."""
    return "1 run is" if len(texts) == 1 else f"{len(texts)} runs are"


def tell_some(texts: Sequence[str]) -> str:
    """The first few of some texts, and how many more there are."""
    more = f" and {len(texts) - _MOST_TOLD} more" if len(texts) > _MOST_TOLD else ""
    return "; ".join(texts[:_MOST_TOLD]) + more


def _matches(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(_is_one_of(values.get(key, _ABSENT), asked) for key, asked in wanted.items())


def _is_one_of(value: Any, asked: Any) -> bool:
    """Whether a value is the one that is asked for, or one of a list; a key that the run lacks has none."""
    if value is _ABSENT:
        return False
    several = asked if isinstance(asked, list) else []
    return canonical(value) in map(canonical, [asked, *several])


def _rank(one: Candidate) -> tuple[bool, str, int]:
    """Later is better."""
    return one.run.status == _FINISHED, str(one.run.summary.get("finished", "")), one.number


def read_argument(claim: ClaimConfig, name: str) -> Any:
    """An argument that every estimator takes, as the claim has it or by default."""
    return claim.arguments.get(name, {**COMMON, **AT_BEST}[name])


def _find_number(claim: ClaimConfig, run: RunResult, argument: str, name: str) -> float | None:
    """The number of a run for an argument; infinite, and the worst, where the run diverged."""
    number = find_quantity(run, name)
    is_compared = argument in (Y, BEST_BY)
    if is_compared and (has_diverged(run) or (number is not None and not math.isfinite(number))):
        return math.inf
    return number


def _observe(claim: ClaimConfig, names: Mapping[str, str], one: Candidate) -> Observation:
    numbers = {argument: _find_number(claim, one.run, argument, name) for argument, name in names.items()}
    keys = [SEED, *list_pair_keys(claim)]
    block = tuple(_hashable(one.run.values.get(key)) for key in keys)
    return Observation(one.number, block, {name: math.nan if n is None else n for name, n in numbers.items()})


def list_pair_keys(claim: ClaimConfig) -> list[str]:
    """The config keys besides the seed that runs of a pair share."""
    return [key for key in read_argument(claim, PAIR_BY) if key != SEED]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else canonical(value)
