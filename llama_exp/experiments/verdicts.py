"""What came of an experiment's claims, in the runs that lie in its folder."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

from llama_exp.config.schema.protocol import ExpectedConfig
from llama_exp.errors import InputError
from llama_exp.protocol.verdicts import ClaimResult, judge
from llama_exp.report.numbers import show_interval, show_number
from llama_exp.results import RunResult, load_runs

NOT_RUN = "not run"


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


def judge_folder(folder: Path) -> list[ClaimResult]:
    """The claims of the experiment in a folder; raises `InputError` for a damaged record."""
    return judge(load_experiment(folder))


def name_verdict(result: ClaimResult) -> str:
    """The verdict in a word or two; of a claim none of whose stages has run, that."""
    return result.verdict.value if result.experiment.list_runs(result.claim.stages) else NOT_RUN


def list_uncomputed(results: Sequence[ClaimResult], stages: Collection[str]) -> list[str]:
    """Names of the claims that stages which have run do not answer."""
    asked = [result for result in results if set(result.claim.stages) <= set(stages)]
    return [result.name for result in asked if result.obtained is None]


def say_result(result: ClaimResult) -> str:
    """A claim in a few lines of a terminal."""
    lines = [f"{result.name}: {name_verdict(result)}", f"  {result.claim.statement}"]
    if result.obtained is not None:
        lines.append(f"  obtained {show_obtained(result)}, expected {show_expected(result.claim.expected)}")
    return "\n".join([*lines, f"  {result.reason}"])


def show_obtained(result: ClaimResult) -> str:
    """-0.52 [-0.55, -0.49]; a dash where the runs do not answer."""
    found = result.obtained
    if found is None:
        return "–"
    unit = f" {found.unit}" if found.unit else ""
    return f"{show_number(found.value)}{unit} {show_interval(found.low, found.high)}"


def show_expected(expected: ExpectedConfig) -> str:
    """At most -0.2; 0.4 to 0.6."""
    low, high = (None if end is None or math.isinf(end) else f"{end:g}" for end in (expected.low, expected.high))
    if low is None:
        return "anything" if high is None else f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"
