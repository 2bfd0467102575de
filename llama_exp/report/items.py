"""Comparisons item by item of an evaluation (Miller 2024, arXiv:2411.00640).

Two models that answer the same questions differ less by chance than two accuracies: what is hard for one is mostly hard
for the other. An item's difference is averaged over the pairs of one seed, and the interval is that of the mean over
items.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from llama_exp.limits.figures import split_figure
from llama_exp.report.contents import Comparison, ItemComparison
from llama_exp.results import RunResult
from llama_exp.results.statistics import estimate

_Scores = dict[str, dict[int, float]]  # word of a figure -> item -> value


def compare_items(
    results: Sequence[RunResult], comparisons: Sequence[Comparison], confidence: float
) -> tuple[ItemComparison, ...]:
    """One for each comparison and figure of an evaluation that all of its pairs have done on the same items.

    Args:
        results: the runs.
        comparisons: of their groups.
        confidence: of the intervals.

    Raises:
        InputError: a file of items is damaged.
    """
    read = functools.cache(lambda number, name: _read_scores(results[number - 1], name))
    found = []
    for row in comparisons:
        for name in _list_shared([results[number - 1] for pair in row.pairs for number in pair]):
            scores = [(read(own, name), read(other, name)) for own, other in row.pairs]
            for word, differences in _subtract(scores):
                runs = tuple(number for pair in row.pairs for number in pair)
                figure = f"evaluation.{name}.{word}"
                found.append(ItemComparison(row.group, row.baseline, figure, runs, estimate(differences, confidence)))
    return tuple(found)


def _list_shared(runs: Sequence[RunResult]) -> list[str]:
    """Names of the evaluations that all of the runs have done last on the same items."""
    last = [{row["name"]: row for row in run.evaluations if row.get("file")} for run in runs]
    shared = [name for name in (last[0] if last else {}) if all(name in rows for rows in last)]
    return [name for name in shared if len({str(rows[name].get("fingerprint")) for rows in last}) == 1]


def _read_scores(run: RunResult, name: str) -> _Scores:
    """Of the last evaluation of this name; {} where its file is gone."""
    rows = [row for row in run.evaluations if row["name"] == name and row.get("file")]
    scores: _Scores = {}
    for item in run.read_items(rows[-1]):
        for word, value in item.items():
            if word != "item" and split_figure(word)[1] is not None and _is_number(value):
                scores.setdefault(word, {})[item["item"]] = float(value)
    return scores


def _subtract(pairs: Sequence[tuple[_Scores, _Scores]]) -> Iterator[tuple[str, list[float]]]:
    """Word of a figure, and for each item the mean difference of the pairs; of figures that every item of all has."""
    for word in pairs[0][0] if pairs else ():
        if not all(word in own and word in other for own, other in pairs):
            continue
        items = set(pairs[0][0][word])
        if all(set(own[word]) == items == set(other[word]) for own, other in pairs):
            yield (
                word,
                [
                    math.fsum(own[word][item] - other[word][item] for own, other in pairs) / len(pairs)
                    for item in sorted(items)
                ],
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
