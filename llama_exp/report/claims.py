"""The claims that runs state, as tables: expected beside obtained, the verdict, what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_exp.console.live import format_seconds
from llama_exp.protocol import ClaimResult, Experiment
from llama_exp.report.contents import Cell, Column, Report, Table
from llama_exp.report.grouping import format_setting
from llama_exp.report.numbers import choose_decimals, show_interval, show_number
from llama_exp.report.spending import Cost
from llama_exp.results.statistics import Estimate

NOTHING = "–"
RULE = (
    "confirmed: the whole interval lies in the expected range; contradicted: all of it lies outside; not seen: neither,"
    " or the runs do not answer. Each claim is judged by itself."
)
QUICK = "This is the quick variant, which shows that everything runs: its figures are no result."
_COLUMNS = (
    Column("claim"),
    Column("expected", True),
    Column("obtained", True),
    Column("interval", True),
    Column("published", True, may_go=True),
    Column("verdict"),
    Column("runs", True, may_go=True),
    Column("wall time", True, may_go=True),
)


def make_claims(report: Report) -> tuple[Table, ...]:
    """A table for each experiment with a row for each of its claims."""
    tables = []
    for number, (experiment, claims) in enumerate(group_claims(report), start=1):
        rows = tuple(tuple(_list_cells(report, result)) for result in claims)
        notes = (*_tell_experiment(experiment), RULE, *map(_tell_claim, claims))
        tables.append(Table(f"claims-{number}", f"Claims: {name_experiment(experiment)}", _COLUMNS, rows, notes))
    return tuple(tables)


def make_estimates(report: Report) -> Table | None:
    """A row for each claim that the runs answer: how its number and interval were found."""
    answered = [result for result in report.claims if result.obtained is not None]
    rows = tuple(tuple(_list_estimate(result)) for result in answered)
    columns = (Column("claim"), Column("experiment"), Column("estimator"), Column("unit"), Column("interval"))
    notes = tuple(f"{result.name}: {note}" for result in answered for note in result.notes)
    return Table("estimates", "How the claims were measured", columns, rows, notes) if rows else None


def group_claims(report: Report) -> list[tuple[Experiment, list[ClaimResult]]]:
    """The claims of each experiment."""
    found: dict[int, tuple[Experiment, list[ClaimResult]]] = {}
    for result in report.claims:
        found.setdefault(id(result.experiment), (result.experiment, []))[1].append(result)
    return list(found.values())


def name_experiment(experiment: Experiment) -> str:
    """Its title; of the quick variant with this word."""
    title = experiment.protocol.title or experiment.name
    title += f" with {' '.join(experiment.changes)}" if experiment.changes else ""
    return f"{title} (quick variant, no result)" if experiment.is_quick else title


def show_expected(low: float | None, high: float | None) -> str:
    """≥ 1, ≤ -0.2, or 5 to 20; of a damaged claim without an end, a dash."""
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    return f"≥ {low:g}" if low is not None else NOTHING if high is None else f"≤ {high:g}"


def show_settings(settings: Mapping[str, Any]) -> str:
    """`lora.rank=128, seed=[0, 1]`."""
    return ", ".join(f"{key}={format_setting(value)}" for key, value in settings.items())


def show_verdict(result: ClaimResult) -> str:
    """The word; of the quick variant no word that could pass for a result."""
    return f"quick: {result.verdict.value}" if result.experiment.is_quick else result.verdict.value


def add_seconds(report: Report, result: ClaimResult) -> float:
    """Of all attempts at a claim's runs, as far as they are known."""
    return sum(cost.seconds or 0.0 for cost in _list_costs(report, result))


def add_flops(report: Report, result: ClaimResult) -> float | None:
    """Of a claim's runs; None: of one it is not known."""
    flops = [cost.flops for cost in _list_costs(report, result)]
    return None if None in flops else sum(number or 0.0 for number in flops)


def _list_cells(report: Report, result: ClaimResult) -> Iterator[Cell]:
    claim, obtained = result.claim, result.obtained
    runs = tuple(number + 1 for number in result.runs)
    value = interval = NOTHING
    if obtained is not None:
        # As a column of one row: two digits of the half of the interval.
        decimals = choose_decimals([Estimate(1, obtained.value, None, obtained.low, obtained.high)])
        value, interval = show_number(obtained.value, decimals), show_interval(obtained.low, obtained.high, decimals)
    texts = [result.name, show_expected(claim.expected.low, claim.expected.high), value, interval]
    texts.append(NOTHING if claim.published is None else f"{claim.published:g}")
    yield from (Cell(text, runs) for text in texts)
    yield Cell(show_verdict(result), runs, verdict=None if result.experiment.is_quick else result.verdict)
    costs = _list_costs(report, result)
    yield from (Cell(text, runs) for text in (str(len(runs)), _show_time(costs)))


def _tell_experiment(experiment: Experiment) -> Iterator[str]:
    if experiment.is_quick:
        yield QUICK
    if experiment.changes:
        yield f"All of its runs were given what the experiment does not state: {', '.join(experiment.changes)}."
    source = experiment.protocol.source
    if source is not None:
        yield f"After {source.authors} ({source.year}): {source.title}, {source.url}."
    yield from experiment.notes


def _tell_claim(result: ClaimResult) -> str:
    where = f" ({result.claim.where})" if result.claim.where else ""
    return f"{result.name}: {result.claim.statement}{where} {show_verdict(result).capitalize()}: {result.reason}"


def _list_estimate(result: ClaimResult) -> Iterator[Cell]:
    assert result.obtained is not None
    experiment = f"{result.experiment.name}{', quick' if result.experiment.is_quick else ''}"
    texts = [result.name, experiment, result.claim.estimator, result.obtained.unit or NOTHING, result.obtained.method]
    runs = tuple(number + 1 for number in result.runs)
    yield from (Cell(text, runs) for text in texts)


def _list_costs(report: Report, result: ClaimResult) -> list[Cost]:
    chosen = set(result.runs)
    return [cost for cost in report.costs if cost.run - 1 in chosen]


def _show_time(costs: Sequence[Cost]) -> str:
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    if not known:
        return NOTHING
    is_least = len(known) < len(costs) or any(cost.is_least for cost in costs)
    return f"{'≥ ' if is_least else ''}{format_seconds(sum(known))}"
