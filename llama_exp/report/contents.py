"""The whole content of a report as plain data: what each format shows, and which runs every number comes from.

    results.load_runs --make_report--> Report --tables.list_tables--> Table --markdown, latex, terminal--> text
                                          `--csv_files, pictures, page--> files

Runs and groups have numbers from 1 on, by which everything else names them. Imports no framework.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_exp.limits.figures import Direction
from llama_exp.protocol import ClaimResult, Verdict
from llama_exp.report.spending import Cost, TotalCost
from llama_exp.results.statistics import Estimate, Share


class Scale(enum.Enum):
    """How the values of a key, or a figure, lie on an axis."""

    linear = "linear"
    log = "log"
    categories = "categories"  # evenly, in the order of `Key.values`


@dataclass(frozen=True)
class Options:
    """What somebody asks of a report.

    figure: path of the one that ranks, `validation.loss`; None: what the runs themselves call their objective.
    baseline: `key=value,...` or a run's folder; None: the first run's config. confidence: of all intervals.
    """

    figure: str | None = None
    baseline: str | None = None
    confidence: float = 0.95


@dataclass(frozen=True)
class Figure:
    """A number of runs. path: dotted, in summary.json. label: for an axis, with its unit. direction: the good one."""

    path: str
    label: str
    direction: Direction


@dataclass(frozen=True)
class Key:
    """A key of the config whose value differs between groups.

    path: dotted. label: the shortest end of the path that no other key has, `rank`. values: all that occur, in order.
    follows: keys that change exactly when this one does, and so have no column of their own.
    """

    path: str
    label: str
    scale: Scale
    values: tuple[Any, ...]
    follows: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportedRun:
    """A run.

    number: from 1 on, in the order of the folders. command: trains it alone, from `working_folder`. status: of
    summary.json. seed: None where the config has none. group: number of its group. values: key path -> value, of
    `Report.keys`. figures: path -> value, may be NaN; what it lacks is absent. reason: why it is not averaged; None:
    it is.
    """

    number: int
    name: str
    folder: Path
    command: str
    working_folder: str
    status: str
    seed: int | None
    group: int
    values: Mapping[str, Any]
    figures: Mapping[str, float]
    reason: str | None = None


@dataclass(frozen=True)
class Group:
    """Runs of one config, whatever their seed.

    number: rank by `Report.figure` from 1 on; groups without a number come last. label: `rank=8 learning_rate=0.001`.
    values: key path -> value. runs: numbers of those that are averaged, by seed. left_out: of the others. estimates:
    figure path -> over `runs` that have it. best_in: paths of the figures in which its interval excludes the second
    best mean; what a table sets in bold.
    """

    number: int
    label: str
    values: Mapping[str, Any]
    runs: tuple[int, ...]
    left_out: tuple[int, ...]
    estimates: Mapping[str, Estimate]
    best_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A group against the baseline, run by run of the same seed, in one figure.

    pairs: (run of the group, run of the baseline), by seed. differences: group minus baseline, one per pair.
    difference: their mean; None without a pair. p: two-sided, of flipping signs; p_is_exact: of all 2^n flips; else of
    a seeded sample. p_holm: corrected for all comparisons of the report. smallest_p: that n pairs can show at all.
    better: how often the group was better; equal values count for the baseline. bootstrap: BCa interval of the mean
    difference, from 8 pairs up. unpaired: seeds that only one of the two has. limits: what these pairs cannot show, in
    sentences.
    """

    group: int
    baseline: int
    figure: str
    seeds: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    differences: tuple[float, ...]
    difference: Estimate | None
    p: float | None
    p_is_exact: bool
    p_holm: float | None
    smallest_p: float | None
    better: Share | None
    bootstrap: tuple[float, float] | None
    unpaired: tuple[int, ...] = ()
    limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class ItemComparison:
    """A group against the baseline, item by item of an evaluation that both have done on the same items.

    figure: `evaluation.<name>.<word>`. runs: of both sides. difference: mean over items, each of which is averaged over
    the pairs of one seed first; its n is the number of items.
    """

    group: int
    baseline: int
    figure: str
    runs: tuple[int, ...]
    difference: Estimate


@dataclass(frozen=True)
class Comparisons:
    """All of a report.

    baseline: label of the group, or of what its groups share. chosen: by whom, in a few words. items: of evaluations
    whose results for each item are there.
    """

    baseline: str
    chosen: str
    rows: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    items: tuple[ItemComparison, ...] = ()


@dataclass(frozen=True)
class Curve:
    """A figure of a run over its steps. figure: `train.loss`, `validation.loss`, `evaluation.<name>.<figure>`."""

    run: int
    group: int
    figure: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class EffectPoint:
    """A group on an `EffectLine`. value: of the key. run_values: of the figure, of the runs in `runs`."""

    value: Any
    group: int
    estimate: Estimate
    runs: tuple[int, ...]
    run_values: tuple[float, ...]


@dataclass(frozen=True)
class EffectLine:
    """Groups that differ in one key only, by its value. label: of the other keys; empty where no other differs."""

    label: str
    points: tuple[EffectPoint, ...]


@dataclass(frozen=True)
class Effect:
    """What `Report.figure` is over the values of one key."""

    key: Key
    lines: tuple[EffectLine, ...]


@dataclass(frozen=True)
class Axis:
    """Of parallel coordinates. ticks: (position from 0 to 1, text). path: of a key or of the figure."""

    path: str
    label: str
    scale: Scale
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class CoordinateLine:
    """A run in parallel coordinates.

    positions: from 0 to 1, one per axis; None: it lacks the key. value: of the figure.
    """

    run: int
    group: int
    positions: tuple[float | None, ...]
    value: float


@dataclass(frozen=True)
class Coordinates:
    """Parallel coordinates: the keys, then the figure as the last axis, good values on top."""

    axes: tuple[Axis, ...]
    lines: tuple[CoordinateLine, ...]


@dataclass(frozen=True)
class Paragraph:
    """Of the reproducibility statement. title: a word or two."""

    title: str
    text: str


@dataclass(frozen=True)
class Report:
    """All of it.

    figure: that ranks. figures: all that tables show, this one first. keys: columns of the tables. common: key path ->
    value, what all runs share. groups: best first. comparisons: None: there is nothing to compare. best_rule: when a
    value is set in bold, in a sentence. notes: what a reader of the whole must know, in sentences. claims: those that
    the runs state, judged.
    """

    title: str
    figure: Figure
    figures: tuple[Figure, ...]
    confidence: float
    keys: tuple[Key, ...]
    runs: tuple[ReportedRun, ...]
    groups: tuple[Group, ...]
    comparisons: Comparisons | None
    curves: tuple[Curve, ...]
    effects: tuple[Effect, ...]
    coordinates: Coordinates | None
    costs: tuple[Cost, ...]
    total_cost: TotalCost
    statement: tuple[Paragraph, ...]
    best_rule: str
    notes: tuple[str, ...] = ()
    common: Mapping[str, Any] = field(default_factory=dict)
    claims: tuple[ClaimResult, ...] = ()

    def run(self, number: int) -> ReportedRun:
        """The run of a number."""
        return self.runs[number - 1]

    def group(self, number: int) -> Group:
        """The group of a number."""
        return self.groups[number - 1]


@dataclass(frozen=True)
class Cell:
    """Of a table. runs: numbers of those that it comes from. is_best: to be set in bold. verdict: that it says."""

    text: str
    runs: tuple[int, ...] = ()
    is_best: bool = False
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Column:
    """Of a table. is_number: set to the right. may_go: where there is no room for all."""

    title: str
    is_number: bool = False
    may_go: bool = False


@dataclass(frozen=True)
class Table:
    """name: for anchors and files, `leaderboard`. rows: as many cells as columns. notes: below it, in sentences."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
