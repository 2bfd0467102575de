"""The runs of a page: for each stage the mean of each arm over its seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llama_exp.errors import InputError
from llama_exp.experiments.page.clean import Cleaner
from llama_exp.experiments.page.gather import Contents
from llama_exp.report import Options, make_report
from llama_exp.report.contents import Table
from llama_exp.report.markdown import escape
from llama_exp.report.tables import make_leaderboard
from llama_exp.results import RunResult

_MOST_ROWS = 60


def write_runs(contents: Contents, clean: Cleaner) -> str:
    """A table for each stage, those of the pre-trained half behind the others."""
    parts = []
    for name, stage in contents.protocol.stages.items():
        runs = contents.runs_of(name)
        if runs:
            count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
            parts.append(f"### Stage {name}\n\n{count}, half: {stage.half.value}.\n\n{_write_stage(runs, clean)}")
    return "\n\n".join(parts) or "No run has begun."


def _write_stage(runs: Sequence[RunResult], clean: Cleaner) -> str:
    try:
        table = make_leaderboard(make_report(runs, Options()))
    except InputError as error:
        return f"No table: {escape(clean(error.problems[0].what))}."
    if table is None:
        return "None has a figure that could be averaged."
    return "\n".join(_list_lines(table, clean))


def _list_lines(table: Table, clean: Cleaner) -> Iterator[str]:
    chosen = [index for index, column in enumerate(table.columns) if column.title != "config"]
    titles = [escape(table.columns[index].title) for index in chosen]
    yield f"| {' | '.join(titles)} |"
    yield f"|{'|'.join('---:' if table.columns[index].is_number else '---' for index in chosen)}|"
    for row in table.rows[:_MOST_ROWS]:
        cells = [clean(row[index].text) for index in chosen]
        yield f"| {' | '.join(map(escape, cells))} |"
    if len(table.rows) > _MOST_ROWS:
        yield f"\n{len(table.rows) - _MOST_ROWS} worse ones are not shown."
