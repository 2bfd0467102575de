"""What came of an experiment's claims, in the runs that lie in its folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from llama_exp.errors import InputError
from llama_exp.protocol import ClaimResult
from llama_exp.report.claims import show_verdict
from llama_exp.report.numbers import choose_decimals, show_interval, show_number
from llama_exp.results import RunResult, load_runs
from llama_exp.results.statistics import Estimate

NOT_RUN, NOTHING = "not run", "–"


def load_experiment(folder: Path) -> list[RunResult]:
    """The runs of an experiment; [] before the first one has begun.

    Raises:
        InputError: a run's record is damaged.
    """
    try:
        return load_runs([folder])
    except InputError as error:
        if error.problems[0].what.startswith(("holds no run", "no job of this sweep")):
            return []
        raise


def name_verdict(result: ClaimResult) -> str:
    """The verdict in a word or two; of a claim none of whose stages has run, that."""
    return show_verdict(result) if result.experiment.list_runs(result.claim.stages) else NOT_RUN


def list_uncomputed(results: Sequence[ClaimResult], stages: Collection[str]) -> list[str]:
    """Names of the claims that stages which have run do not answer."""
    asked = [result for result in results if set(result.claim.stages) <= set(stages)]
    return [result.name for result in asked if result.obtained is None]


def show_obtained(result: ClaimResult) -> str:
    """-0.52 [-0.55, -0.49]; a dash where the runs do not answer."""
    value, interval = show_answer(result)
    return value if result.obtained is None else f"{value} {interval}"


def show_answer(result: ClaimResult) -> tuple[str, str]:
    """The number and its interval, with as many digits as the interval gives them; dashes without an answer."""
    found = result.obtained
    if found is None:
        return NOTHING, NOTHING
    decimals = choose_decimals([Estimate(1, found.value, None, found.low, found.high)])
    return show_number(found.value, decimals), show_interval(found.low, found.high, decimals)
