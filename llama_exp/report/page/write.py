"""All of the page in one file."""

from __future__ import annotations

import functools
import importlib.resources
import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

import jinja2

from llama_exp.files.writing import write_text
from llama_exp.report.claims import group_claims, make_claims, show_verdict
from llama_exp.report.contents import Report, ReportedRun, Table
from llama_exp.report.page.data import dump_data

SCRIPTS = ("plot.js", "curves.js", "swept.js", "parallel.js", "tables.js")


def write_page(report: Report, tables: Sequence[Table], details: Sequence[Table], path: Path, command: str) -> None:
    """Writes the page.

    Args:
        report: what it shows.
        tables: but for those of claims, in their order; the first stands before the pictures.
        details: shown when they are asked for.
        path: an .html file, replaced as a whole.
        command: that makes this report again.

    Raises:
        StorageError: it cannot be written.
    """
    write_text(path, render_page(report, tables, details, path.parent, command))


def render_page(report: Report, tables: Sequence[Table], details: Sequence[Table], folder: Path, command: str) -> str:
    """The page as text; links to runs are relative to `folder`, where it will lie, so that both can move together."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_read("page.html"))
    claims = make_claims(report)
    return template.render(
        report=report,
        claims=claims,
        results=group_claims(report),
        claim_style=_read("claims.css") if claims else "",
        show_verdict=show_verdict,
        tables=tables,
        details=details,
        command=command,
        style=_read("page.css"),
        scripts=[_read(name) for name in (*SCRIPTS, *(("claims.js",) if claims else ()))],
        data=dump_data(report),
        link_to=functools.partial(link_to, folder=folder),
        as_number=as_number,
    )


def link_to(run: ReportedRun, folder: Path) -> str:
    """A relative link to the folder of a run."""
    relative = Path(os.path.relpath(run.folder, folder.absolute())).as_posix()
    return urllib.parse.quote(relative) + "/"


def as_number(text: str) -> str | None:
    """What a column is sorted by: the first number of a cell (`2.34 ± 0.02`); None: its text."""
    word = text.split("±")[0].split("[")[0].replace(",", "").replace("\u2212", "-").strip()
    try:
        float(word)
    except ValueError:
        return None
    return word


def _read(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
