"""How a repetition ended: bit-identical, within tolerance, or different."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llama_exp.reproduction.shown import show_pair
from llama_exp.reproduction.tolerance import OF_LEARNING_RATE, SMALLEST_LOSS, tolerated_gap
from llama_exp.results.outcome import Outcome
from llama_exp.results.parting import Gap

# Figures that are judged as losses, nats per token or bits per byte.
LOSSES = frozenset({"loss", "bits_per_byte"})
# Follow from a loss, or are as noisy as single batches: shown, not judged.
SHOWN_ONLY = frozenset({"perplexity", "grad_norm"})


class Ending(enum.Enum):
    """The three ways that a repetition ends."""

    identical = "bit-identical"
    tolerated = "within tolerance"
    different = "different"


@dataclass(frozen=True)
class Verdict:
    """ending: of the repetition. reasons: what is not as it was, the first one first; () of a bit-identical one."""

    ending: Ending
    reasons: tuple[str, ...]


def judge(outcome: Outcome, values: Mapping[str, Any]) -> Verdict:
    """Judges what a repetition left.

    Args:
        outcome: the recorded run compared with it.
        values: the recorded config by dotted key.
    """
    if outcome.is_same:
        return Verdict(Ending.identical, ())
    reasons = list(_find_missing(outcome))
    reasons += [_describe(gap, limit) for gap, limit in _find_excesses(outcome.parting.gaps, values)]
    if reasons or not outcome.parting.compared:
        return Verdict(Ending.different, tuple(reasons or ["no row that both runs have"]))
    return Verdict(Ending.tolerated, tuple(_find_tolerated(outcome)))


def tolerate(step: int, split: str, values: Mapping[str, Any]) -> float:
    """`tolerated_gap` of a recorded run."""
    mode = values.get("quantization.mode")
    return tolerated_gap(step, split, str(values.get("precision.policy")), mode not in (None, "none", "preset"))


def _find_excesses(gaps: Iterable[Gap], values: Mapping[str, Any]) -> Iterable[tuple[Gap, float]]:
    """Gaps that rounding does not explain, with what it would."""
    for gap in gaps:
        if gap.figure in SHOWN_ONLY or not _is_of_training(gap) and gap.figure not in LOSSES:
            continue
        limit = 0.0
        if gap.figure in LOSSES:
            limit = tolerate(gap.step, gap.split, values)
        elif gap.figure == "learning_rate":
            limit = OF_LEARNING_RATE
        if not _size(gap) <= limit:
            yield gap, limit


def _is_of_training(gap: Gap) -> bool:
    """Whether a row is of metrics.jsonl; other figures of evaluations, such as accuracies, jump item by item."""
    return gap.split in ("train", "validation")


def _size(gap: Gap) -> float:
    if gap.figure not in LOSSES or gap.relative == float("inf"):
        return gap.relative
    return abs(gap.before - gap.after) / max(abs(gap.before), abs(gap.after), SMALLEST_LOSS)


def _find_missing(outcome: Outcome) -> Iterable[str]:
    for keys, which in ((outcome.parting.missing, "only the recorded run"), (outcome.parting.added, "only this one")):
        if keys:
            step, split = keys[0]
            yield f"step {step}: {which} has a row of {split or 'metrics'}; {len(keys)} such rows in all"


def _find_tolerated(outcome: Outcome) -> Iterable[str]:
    first = outcome.parting.first
    if first is not None:
        yield f"from step {first.step} on: {first.split} {first.figure} {_pair(first)}"
    for figure in ("loss", "grad_norm"):
        largest = outcome.parting.find_largest(figure)
        if largest is not None:
            yield f"largest gap of {figure}: {100 * largest.relative:.2g} % at step {largest.step} ({largest.split})"
    if outcome.same_weights is False:
        yield "the weights at the end are others"
    if outcome.other_sample is not None:
        yield f"sampled text is another from step {outcome.other_sample} on"


def _describe(gap: Gap, limit: float) -> str:
    apart = "" if gap.relative == float("inf") else f", {100 * gap.relative:.2g} % apart"
    tolerated = f"; rounding explains {100 * limit:.2g} % there" if limit else ""
    return f"step {gap.step}: {gap.split} {gap.figure} {_pair(gap)}{apart}{tolerated}"


def _pair(gap: Gap) -> str:
    before, after = show_pair(gap.before, gap.after)
    return f"{before} then, {after} now"
