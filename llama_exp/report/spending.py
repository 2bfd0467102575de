"""What runs cost, as plain data; part of `contents.py`."""

from __future__ import annotations

from dataclasses import dataclass

from llama_exp.report.numbers import show_count


@dataclass(frozen=True)
class Cost:
    """What a run cost.

    tokens: trained, each once. flops: additions and multiplications for them; None: the model's size is not known.
    seconds: of all attempts; None: not known. is_least: whether attempts are missing in it whose end nobody recorded.
    attempts: how often it was begun. failed_attempts: of these, that failed; failed_seconds: theirs.
    """

    run: int
    tokens: int | None
    flops: float | None
    seconds: float | None
    is_least: bool
    attempts: int
    failed_attempts: int
    failed_seconds: float


@dataclass(frozen=True)
class TotalCost:
    """Of all runs together, those included that are not averaged.

    unknown: runs without a known time. outside: attempts of jobs that have left no run folder, in attempts and seconds
    included. left_out_seconds: of runs that are not averaged. branched: runs that began with another run's state, whose
    own steps alone count. trunk_tokens: of those other runs that are not among these.
    """

    runs: int
    attempts: int
    failed_attempts: int
    tokens: int
    flops: float | None
    seconds: float
    is_least: bool
    failed_seconds: float
    left_out_seconds: float
    unknown: int
    outside: int
    branched: int = 0
    trunk_tokens: int = 0


def tell_branches(total: TotalCost) -> str:
    """What the numbers of runs mean that began with another run's state; "": there are none."""
    if not total.branched:
        return ""
    runs = "1 run" if total.branched == 1 else f"{total.branched} runs"
    text = f"Of {runs} that began with another run's state, their own steps count."
    if total.trunk_tokens:
        text += f" The runs that they began with are not here: {show_count(total.trunk_tokens)} tokens more."
    return text
