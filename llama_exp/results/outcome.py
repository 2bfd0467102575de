"""What two runs left, side by side: rows, samples, weights, final figures. Imports no framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_exp.config.identity import flatten
from llama_exp.files.metrics_file import read_samples
from llama_exp.results.parting import Parting, compare_rows
from llama_exp.results.run import RunResult

# Digests in summary.json: of what training changed, and of the files that were exported.
WEIGHTS = "weights"
_CLOCK = frozenset({"started", "finished", "seconds", "tokens_per_second", "peak_memory_bytes"})


@dataclass(frozen=True)
class Outcome:
    """How the results of two runs compare.

    parting: of the rows. same_weights: whether training ended with the same; None: one of them does not say, or they
    ended at different steps. other_sample: the first step whose sampled text differs; None: no text differs.
    """

    parting: Parting
    same_weights: bool | None
    other_sample: int | None

    @property
    def is_same(self) -> bool:
        """Whether everything that both have is the same, bit by bit, and there is something."""
        rows = self.parting
        same = not (rows.gaps or rows.missing or rows.added) and self.other_sample is None
        return same and self.same_weights is not False and rows.compared > 0


def compare_outcomes(before: RunResult, after: RunResult, last_step: int | None = None) -> Outcome:
    """Compares what two runs left.

    Args:
        before: one run.
        after: the other.
        last_step: rows of `after` at this step that `before` lacks are no difference: it was stopped there, and a last
            step is always measured. None: it was not.
    """
    rows = [[*run.rows, *run.own_evaluations] for run in (before, after)]
    if last_step is not None:
        known = {_key(row) for row in rows[0]}
        rows[1] = [row for row in rows[1] if row.get("step") != last_step or _key(row) in known]
    weights = [run.summary.get(WEIGHTS) for run in (before, after)]
    steps = [run.summary.get("steps") for run in (before, after)]
    same = None if None in weights or steps[0] != steps[1] else weights[0] == weights[1]
    return Outcome(compare_rows(*rows), same, _find_other_sample(before, after))


def list_final_figures(before: RunResult, after: RunResult) -> list[tuple[str, Any, Any]]:
    """Name and both values of the numbers of two summaries, but for what a clock decides.

    What the summary says of the data is listed only where it differs.
    """
    one, other = (_figures(run.summary) for run in (before, after))
    names = [*one, *(name for name in other if name not in one)]
    shown = [name for name in names if not name.startswith("data.") or one.get(name) != other.get(name)]
    return [(name, one.get(name), other.get(name)) for name in shown]


def _figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """`status` and all numbers by dotted key; NaN and infinities stand as texts in the file."""
    flat = {name: value for name, value in flatten(summary).items() if name not in _CLOCK and name != "exit_code"}
    numbers = (int, float)
    kept = {name: value for name, value in flat.items() if isinstance(value, numbers) and not isinstance(value, bool)}
    texts = {name: value for name, value in flat.items() if value in ("NaN", "Infinity", "-Infinity")}
    return {"status": summary.get("status", "running"), **kept, **texts}


def _key(row: Mapping[str, Any]) -> tuple[Any, Any]:
    return row.get("step"), row.get("split", row.get("name"))


def _find_other_sample(before: RunResult, after: RunResult) -> int | None:
    one, other = (_samples(run) for run in (before, after))
    steps = sorted(one.keys() & other.keys())
    return next((step for step in steps if one[step] != other[step]), None)


def _samples(run: RunResult) -> dict[int, list[tuple[str, str]]]:
    found: dict[int, list[tuple[str, str]]] = {}
    for step, prompt, text in read_samples(run.folder / "samples.md"):
        found.setdefault(step, []).append((prompt, text))
    return found
