"""The tables of a report, the same for every format. Each cell knows the runs that it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llama_exp.console.live import format_seconds
from llama_exp.report.claims import make_claims, make_estimates
from llama_exp.report.contents import Cell, Column, Comparison, Group, Report, Table
from llama_exp.report.figures import label_figure
from llama_exp.report.grouping import format_setting
from llama_exp.report.numbers import choose_decimals, show_count, show_estimate, show_interval, show_number, show_p
from llama_exp.report.spending import Cost, tell_branches
from llama_exp.results.statistics import Estimate

NOTHING = "–"
_MOST_NAMES = 4


def list_tables(report: Report) -> tuple[Table, ...]:
    """Claims, then those of `list_ordinary`."""
    return (*make_claims(report), *list_ordinary(report))


def list_ordinary(report: Report) -> tuple[Table, ...]:
    """Leaderboard, comparisons, runs that are not averaged, cost; those without rows are left out."""
    tables = (
        make_leaderboard(report),
        make_comparisons(report),
        make_items(report),
        make_left_out(report),
        make_estimates(report),
        make_cost(report),
    )
    return tuple(table for table in tables if table is not None)


def make_leaderboard(report: Report) -> Table | None:
    """A row for each config, best first."""
    columns = [Column("config", is_number=True)]
    columns += [Column(key.label) for key in report.keys]
    columns += [Column("seeds", is_number=True)]
    columns += [Column(name_figure(figure.label), True, index > 0) for index, figure in enumerate(report.figures)]
    ranked = [group for group in report.groups if group.estimates]
    if not ranked:
        return None
    decimals = [choose_decimals(group.estimates.get(figure.path) for group in ranked) for figure in report.figures]
    rows = [tuple(_list_ranked(group, report, decimals)) for group in ranked]
    notes = [_tell_intervals(report)]
    if len(rows) > 1:
        notes.append(report.best_rule)
    notes += [f"With {key.path} change: {_shorten(key.follows)}." for key in report.keys if key.follows]
    return Table("leaderboard", "Leaderboard", tuple(columns), tuple(rows), tuple(notes))


def make_comparisons(report: Report) -> Table | None:
    """A row for each config that has a baseline."""
    found = report.comparisons
    if found is None:
        return None
    has_bootstrap = any(row.bootstrap is not None for row in found.rows)
    level = _percent(report.confidence)
    columns = [Column("config", is_number=True), *(Column(key.label, may_go=True) for key in report.keys)]
    columns += [Column("against", is_number=True), Column("pairs", is_number=True), Column("difference", True)]
    columns += [Column(f"{level} t interval", True), Column("p", True), Column("p (Holm)", True)]
    columns += [Column("better in", True, may_go=True), Column("P(better)", True, may_go=True)]
    columns += [Column(f"{level} BCa interval", True, may_go=True)] if has_bootstrap else []
    decimals = choose_decimals(row.difference for row in found.rows)
    rows = tuple(tuple(_list_compared(row, report, has_bootstrap, decimals)) for row in found.rows)
    limits = dict.fromkeys(limit for row in found.rows for limit in row.limits)
    notes = (
        f"Baseline: {found.baseline}, {found.chosen}.",
        f"A difference is config minus baseline in {report.figure.path}, over runs of the same seed;"
        f" p is two-sided, of flipping signs. P(better): exact {level} interval of how often the config is better.",
        *found.notes,
        *limits,
        *_tell_unpaired(found.rows),
    )
    return Table("comparisons", "Against the baseline", tuple(columns), rows, notes)


def make_items(report: Report) -> Table | None:
    """A row for each config and figure of an evaluation whose items are there."""
    if report.comparisons is None or not report.comparisons.items:
        return None
    columns = [Column("config", True), Column("against", True), Column("figure"), Column("items", True)]
    columns += [Column("difference", True), Column(f"{_percent(report.confidence)} interval", True)]
    decimals = choose_decimals(row.difference for row in report.comparisons.items)
    rows = []
    for row in report.comparisons.items:
        found = row.difference
        ends = NOTHING if found.low is None or found.high is None else show_interval(found.low, found.high, decimals)
        texts = [str(row.group), str(row.baseline), name_figure(label_figure(row.figure)), str(found.n)]
        rows.append(tuple(Cell(text, row.runs) for text in (*texts, _show_difference(found, decimals), ends)))
    notes = (
        "Mean over the items of an evaluation of config minus baseline; each item is averaged over the pairs of one"
        " seed first. The interval says what other items of the same kind would change, with the same trained models.",
        "Where items come in clusters (questions on one text), it is too narrow.",
    )
    return Table("items", "Against the baseline, item by item", tuple(columns), tuple(rows), notes)


def make_left_out(report: Report) -> Table | None:
    """A row for each run that no average contains."""
    rows = tuple(
        tuple(Cell(text, (run.number,)) for text in (str(run.number), str(run.group), run.name, str(run.reason)))
        for run in report.runs
        if run.reason is not None
    )
    columns = (Column("run", True), Column("config", True), Column("name", may_go=True), Column("why"))
    note = "Their cost is counted."
    return Table("left_out", "Runs that are not averaged", columns, rows, (note,)) if rows else None


def make_cost(report: Report) -> Table:
    """A row for each config, and one for all."""
    columns = [Column("config", True), *(Column(key.label, may_go=True) for key in report.keys)]
    columns += [Column("runs", True), Column("attempts", True), Column("failed", True), Column("tokens", True)]
    columns += [Column("FLOPs", True), Column("wall time", True)]
    by_run = {cost.run: cost for cost in report.costs}
    rows = [_list_costs(group, [by_run[run] for run in _all_runs(group)], report) for group in report.groups]
    total, numbers = report.total_cost, tuple(run.number for run in report.runs)
    flops = NOTHING if total.flops is None else show_count(total.flops)
    texts = [total.runs, total.attempts, total.failed_attempts, show_count(total.tokens), flops]
    last = ["all", *("" for _ in report.keys), *map(str, texts), _show_time(total.seconds, total.is_least)]
    rows.append(tuple(Cell(text, numbers if text else ()) for text in last))
    return Table("cost", "Cost", tuple(columns), tuple(rows), tuple(_list_cost_notes(report)))


def make_runs(report: Report, group: Group) -> Table:
    """A row for each run of a config; `list_tables` does not have it."""
    columns = [Column("run", True), Column("seed", True), Column("status")]
    columns += [Column(name_figure(figure.label), True) for figure in report.figures]
    rows = []
    for run in (report.run(number) for number in _all_runs(group)):
        texts = [str(run.number), NOTHING if run.seed is None else str(run.seed), run.status]
        values = [run.figures.get(figure.path) for figure in report.figures]
        texts += [NOTHING if value is None else show_number(value) for value in values]
        rows.append(tuple(Cell(text, (run.number,)) for text in texts))
    return Table(f"config-{group.number}", f"Config {group.number}: {group.label}", tuple(columns), tuple(rows))


def name_figure(label: str) -> str:
    """A label without its unit, for the head of a column."""
    return label.partition(" (")[0]


def _list_ranked(group: Group, report: Report, decimals: Sequence[int | None]) -> Iterator[Cell]:
    members = _all_runs(group)
    yield Cell(str(group.number), members)
    yield from (Cell(format_setting(group.values[key.path]), members) for key in report.keys)
    n = len(group.runs)
    yield Cell(f"{n} of {len(members)}" if group.left_out else str(n), members)
    for figure, places in zip(report.figures, decimals, strict=True):
        estimate = group.estimates.get(figure.path)
        text = NOTHING if estimate is None else show_estimate(estimate, places)
        yield Cell(text, group.runs, figure.path in group.best_in)


def _list_compared(row: Comparison, report: Report, has_bootstrap: bool, decimals: int | None) -> Iterator[Cell]:
    group = report.group(row.group)
    runs = tuple(run for pair in row.pairs for run in pair)
    yield Cell(str(row.group), group.runs)
    yield from (Cell(format_setting(group.values[key.path]), group.runs) for key in report.keys)
    yield Cell(str(row.baseline), report.group(row.baseline).runs)
    difference, better = row.difference, row.better
    texts = [str(len(row.pairs)), *[NOTHING] * (7 if has_bootstrap else 6)]
    if difference is not None and better is not None:
        texts[1] = _show_difference(difference, decimals)
        if difference.low is not None and difference.high is not None:
            texts[2] = show_interval(difference.low, difference.high, decimals)
        texts[3] = NOTHING if row.p is None else show_p(row.p) + ("" if row.p_is_exact else " (sampled)")
        texts[4] = NOTHING if row.p_holm is None else show_p(row.p_holm)
        texts[5] = f"{better.count} of {better.n}"
        texts[6] = f"[{better.low:.2f}, {better.high:.2f}]"
        if has_bootstrap and row.bootstrap is not None:
            texts[7] = show_interval(*row.bootstrap, decimals)
    yield from (Cell(text, runs) for text in texts)


def _list_costs(group: Group, costs: Sequence[Cost], report: Report) -> tuple[Cell, ...]:
    flops = [cost.flops for cost in costs]
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    is_least = any(cost.is_least for cost in costs) or len(known) < len(costs)
    texts = [str(group.number), *(format_setting(group.values[key.path]) for key in report.keys), str(len(costs))]
    texts += [str(sum(cost.attempts for cost in costs)), str(sum(cost.failed_attempts for cost in costs))]
    texts.append(show_count(sum(cost.tokens or 0 for cost in costs)))
    texts.append(NOTHING if None in flops else show_count(sum(number or 0.0 for number in flops)))
    texts.append(_show_time(sum(known), is_least) if known else NOTHING)
    return tuple(Cell(text, _all_runs(group)) for text in texts)


def _list_cost_notes(report: Report) -> Iterator[str]:
    total = report.total_cost
    yield (
        "Wall time is that of all attempts; tokens and FLOPs (additions and multiplications of training) count each"
        " trained step once. Energy is not known."
    )
    if told := tell_branches(total):
        yield told
    if total.is_least:
        yield "≥: some attempts were killed, and nobody recorded when."
    if total.outside:
        yield f"The last row has {total.outside} attempts more, at jobs that left no run folder."


def _tell_intervals(report: Report) -> str:
    if all(estimate.n < 2 for group in report.groups for estimate in group.estimates.values()):
        return "One seed each: there are no intervals."
    return f"Mean over seeds ± half of its {_percent(report.confidence)} Student t interval."


def _tell_unpaired(rows: Sequence[Comparison]) -> Iterator[str]:
    for row in rows:
        if row.unpaired:
            seeds = ", ".join(map(str, row.unpaired))
            yield f"Config {row.group}: seed {seeds} was run on one side only, and is in no pair."


def _show_difference(found: Estimate, decimals: int | None) -> str:
    return f"{'+' if found.mean > 0 else ''}{show_number(found.mean, decimals)}"


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _show_time(seconds: float, is_least: bool) -> str:
    return f"≥ {format_seconds(seconds)}" if is_least else format_seconds(seconds)


def _percent(confidence: float) -> str:
    return f"{100 * confidence:.4g} %"


def _all_runs(group: Group) -> tuple[int, ...]:
    return (*group.runs, *group.left_out)
