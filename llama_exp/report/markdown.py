"""A report as Markdown, as GitHub reads it: tables, pictures, links to runs with their commands as titles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from llama_exp.report.contents import Cell, Group, Report, Table
from llama_exp.report.links import link_to, one_line
from llama_exp.report.tables import list_tables, make_runs

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|$~&!])")


def write_markdown(report: Report, folder: Path, pictures: Sequence[tuple[str, str]]) -> str:
    """The whole report.

    Args:
        report: what to say.
        folder: where the document will lie; links are relative to it.
        pictures: name of a file beside it, and what it shows.
    """
    parts = [f"# {escape(report.title)}", *_list_notes(report.notes)]
    parts += [_section(report, table, folder) for table in list_tables(report)]
    parts += [f"## {caption}\n\n![{caption}]({link_to(folder / name, folder)})" for name, caption in pictures]
    parts.append("## Runs")
    parts += [_runs(report, group, folder) for group in report.groups]
    parts.append(write_statement(report))
    return "\n\n".join(part for part in parts if part) + "\n"


def write_statement(report: Report) -> str:
    """The reproducibility statement alone, with its heading."""
    paragraphs = [f"**{paragraph.title}.** {escape(paragraph.text)}" for paragraph in report.statement]
    return "\n\n".join(["## Reproducibility statement", *paragraphs])


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table too."""
    return _SPECIAL.sub(r"\\\1", one_line(text))


def _section(report: Report, table: Table, folder: Path) -> str:
    parts = [f"## {table.title}", _table(report, table, folder), *_list_notes(table.notes)]
    return "\n\n".join(parts)


def _runs(report: Report, group: Group, folder: Path) -> str:
    table = make_runs(report, group)
    members = [report.run(number) for number in (*group.runs, *group.left_out)]
    commands = "\n".join(f"- run {run.number}: {_code(run.command)}" for run in members)
    return "\n\n".join(
        [f'<a id="{table.name}"></a>\n\n### {escape(table.title)}', _table(report, table, folder), commands]
    )


def _table(report: Report, table: Table, folder: Path) -> str:
    head = [escape(column.title) for column in table.columns]
    rule = ["---:" if column.is_number else "---" for column in table.columns]
    rows = [[_cell(report, cell, folder) for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _cell(report: Report, cell: Cell, folder: Path) -> str:
    """With a link: to the folder of its run, or to the list of its runs."""
    is_bold = cell.is_best or cell.verdict is not None
    text = f"**{escape(cell.text)}**" if is_bold else escape(cell.text)
    if len(cell.runs) == 1:
        run = report.run(cell.runs[0])
        title = escape(run.command).replace('"', '\\"')
        return f'[{text}]({link_to(run.folder, folder)} "{title}")'
    groups = {report.run(number).group for number in cell.runs}
    return f"[{text}](#config-{min(groups)})" if len(groups) == 1 and text else text


def _list_notes(notes: Iterable[str]) -> Iterator[str]:
    text = "\n".join(f"- {escape(note)}" for note in notes)
    if text:
        yield text


def _code(text: str) -> str:
    """Text between more backticks than it has itself."""
    line = one_line(text)
    fence = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}" if line else "not recorded"
