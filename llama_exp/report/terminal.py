"""A report on a terminal, as wide as it is; a cell of one run is a link to its folder where terminals know links."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as Drawn
from rich.text import Text

from llama_exp.console.picture import COLOURS
from llama_exp.protocol import Verdict
from llama_exp.report.contents import Cell, Report, Table
from llama_exp.report.links import one_line
from llama_exp.report.tables import list_tables
from llama_exp.sweeps.table_text import cell_len

_PADDING = 2
_MOST_ROWS = 40
# Beginnings of the names of the tables that are shown where there are claims.
_WITH_CLAIMS = ("claims", "comparisons", "cost")
_OF_VERDICTS = {Verdict.confirmed: "bold green", Verdict.contradicted: "bold red", Verdict.not_seen: "bold yellow"}


def show(report: Report, console: Console) -> None:
    """Prints the tables and what must be known to read them.

    Where runs state claims, these and the cost: a leaderboard over all stages ranks what nobody compares.
    """
    console.print(Text(one_line(report.title), style="bold"))
    _print_notes(report.notes, console)
    tables = list_tables(report)
    shown = _choose_tables(tables) if report.claims else tables
    for table in shown:
        console.print()
        _print_table(report, table, console)
    names = {table.name for table in shown}
    if missing := ", ".join(table.title for table in tables if table.name not in names):
        _print_notes([f"Not shown: {missing}; --to FOLDER writes all."], console)


def _choose_tables(tables: Sequence[Table]) -> list[Table]:
    """Claims, comparisons that were asked for, and of the cost the sum."""
    chosen = [table for table in tables if table.name.startswith(_WITH_CLAIMS)]
    return [dataclasses.replace(table, rows=table.rows[-1:]) if table.name == "cost" else table for table in chosen]


def _print_table(report: Report, table: Table, console: Console) -> None:
    chosen = choose_columns(table, console.width)
    fits = sum(_list_widths(table)[index] for index in chosen) <= console.width
    drawn = Drawn(title=Text(table.title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
                  padding=(0, 1, 0, 0))  # fmt: skip
    for index in chosen:
        column = table.columns[index]
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        # Where there is no room at all, digits go on in the next line: none is lost.
        drawn.add_column(
            Text(one_line(column.title)), justify=justify, overflow="fold", no_wrap=column.is_number and fits
        )
    shown = _choose_rows(table.rows)
    for row in shown:
        drawn.add_row(*(_draw(report, row[index]) for index in chosen))
    console.print(drawn)
    missing = [table.columns[index].title for index in range(len(table.columns)) if index not in chosen]
    notes = (
        [f"{len(table.rows) - len(shown)} rows are not shown; --to FOLDER writes all."]
        if len(shown) < len(table.rows)
        else []
    )
    notes += [f"No room for: {', '.join(missing)}; --to FOLDER writes all."] if missing else []
    _print_notes((*table.notes, *notes), console)


def choose_columns(table: Table, width: int) -> list[int]:
    """Indices of the columns that fit: those that may go do so from the right until the others fit, or all are gone."""
    chosen, widths = list(range(len(table.columns))), _list_widths(table)
    for index in reversed(chosen[:]):
        if sum(widths[other] for other in chosen) <= width:
            break
        if table.columns[index].may_go:
            chosen.remove(index)
    return chosen


def _list_widths(table: Table) -> list[int]:
    """Cells of the terminal that each column needs, with the gap behind it; a title may take several lines."""
    return [
        max(map(cell_len, (*column.title.split(), *(row[index].text for row in table.rows)))) + _PADDING
        for index, column in enumerate(table.columns)
    ]


def _choose_rows(rows: Sequence[tuple[Cell, ...]]) -> Sequence[tuple[Cell, ...]]:
    """All, or the first and, of a table with a sum, the last."""
    return rows if len(rows) <= _MOST_ROWS else [*rows[: _MOST_ROWS - 1], rows[-1]]


def _draw(report: Report, cell: Cell) -> Text:
    looks = [f"bold {COLOURS[2]}"] if cell.is_best else []
    looks += [_OF_VERDICTS[cell.verdict]] if cell.verdict is not None else []
    looks += [f"link {report.run(cell.runs[0]).folder.as_uri()}"] if len(cell.runs) == 1 else []
    return Text(one_line(cell.text), style=" ".join(looks))


def _print_notes(notes: Iterable[str], console: Console) -> None:
    for note in notes:
        console.print(Text(one_line(note), style="dim"))
