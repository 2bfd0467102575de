"""Two runs side by side, for `llama-exp diff`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.files.shown_path import show_path
from llama_exp.reproduction.original import open_original
from llama_exp.reproduction.shown import show_pair, to_data
from llama_exp.results.differences import Difference, Effect, find_differences
from llama_exp.results.outcome import Outcome, compare_outcomes, list_final_figures
from llama_exp.results.parting import measure_gap
from llama_exp.results.state import read_state

MOST = 20  # differences of one part that are shown
CAN_CHANGE = {Effect.science: "what is computed", Effect.rounding: "rounding", Effect.nothing: "nothing"}


@dataclass(frozen=True)
class Comparison:
    """names: of the two runs, as a person types them. figures: name and both values of the summaries."""

    names: tuple[str, str]
    differences: list[Difference]
    outcome: Outcome
    figures: list[tuple[str, Any, Any]]

    def list_differences(self) -> list[tuple[Any, ...]]:
        """Part, name, both values and what it can change, for a table; of a part with many the first."""
        counts: dict[str, int] = {}
        rows: list[tuple[Any, ...]] = []
        for entry in self.differences:
            counts[entry.part] = counts.get(entry.part, 0) + 1
            if counts[entry.part] <= MOST:
                rows.append((entry.part, entry.name, entry.before, entry.after, CAN_CHANGE[entry.effect]))
        more = [(part, f"... {count - MOST} more", "", "", "") for part, count in counts.items() if count > MOST]
        return rows + more

    def say_results(self) -> Iterator[str]:
        """The results in a few sentences."""
        rows = self.outcome.parting
        if not rows.compared:
            yield "results: no row of metrics that both runs have"
        elif self.outcome.is_same:
            weights = "; the same weights at the end" if self.outcome.same_weights else ""
            yield f"results: the same, bit by bit, in all {rows.compared} rows that both have{weights}"
        elif rows.first is None:
            yield f"results: the same in all {rows.compared} rows that both have"
        else:
            yield f"results: part at step {rows.first.step}: {_describe(rows.first)}"
            for figure in ("loss", "grad_norm", "learning_rate"):
                largest = rows.find_largest(figure)
                if largest is not None:
                    yield f"  largest gap of {figure}: {_describe(largest)} at step {largest.step}"
        yield from self._say_rest()

    def _say_rest(self) -> Iterator[str]:
        for which, keys in (("-", self.outcome.parting.missing), ("+", self.outcome.parting.added)):
            if keys:
                yield f"  only {which} has {len(keys)} rows, the first at step {keys[0][0]} ({keys[0][1]})"
        if self.outcome.other_sample is not None:
            yield f"  sampled text is another from step {self.outcome.other_sample} on"
        if self.outcome.same_weights is False:
            yield "  the weights at the end are others"

    def list_figures(self) -> list[tuple[Any, ...]]:
        """Name, both values and their difference, for a table."""
        return [(name, one, other, _subtract(one, other)) for name, one, other in self.figures]

    def to_data(self) -> dict[str, Any]:
        """Everything, for JSON."""
        rows = self.outcome.parting
        return {
            "runs": list(self.names),
            "differences": to_data(self.differences),
            "results": {
                "same": self.outcome.is_same,
                "rows_compared": rows.compared,
                "first_gap": rows.first and dataclasses.asdict(rows.first),
                "gaps": [dataclasses.asdict(gap) for gap in rows.gaps],
                "rows_missing": [list(key) for key in rows.missing],
                "rows_added": [list(key) for key in rows.added],
                "same_weights": self.outcome.same_weights,
                "other_sample_at_step": self.outcome.other_sample,
            },
            "figures": [{"name": name, "before": one, "after": other} for name, one, other in self.figures],
        }


def compare(one: Path, other: Path) -> Comparison:
    """Compares two runs, each a folder or an archive.

    Raises:
        InputError: one of them is no run, or damaged.
    """
    first, second = open_original(one).run, open_original(other).run
    differences = find_differences(read_state(first), read_state(second))
    differences.sort(key=lambda entry: -entry.effect)
    names = (show_path(first.folder), show_path(second.folder))
    return Comparison(names, differences, compare_outcomes(first, second), list_final_figures(first, second))


def _describe(gap: Any) -> str:
    apart = f", {100 * gap.relative:.2g} % apart" if gap.relative != float("inf") else ""
    one, other = show_pair(gap.before, gap.after)
    return f"{gap.split} {gap.figure} {one} and {other}{apart}"


def _subtract(one: Any, other: Any) -> str:
    gap = measure_gap(one, other)
    if gap == 0:
        return "same"
    return "" if gap == float("inf") else f"{other - one:+.4g}"
