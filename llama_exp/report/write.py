"""A report into a folder, in the formats that are asked for. Files of the same names are replaced, others stay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_exp.files.writing import make_folder, write_text
from llama_exp.report import csv_files, latex, markdown
from llama_exp.report.claim_records import dump_claims
from llama_exp.report.contents import Report
from llama_exp.report.page.write import write_page
from llama_exp.report.pictures import draw_pictures, list_pictures
from llama_exp.report.tables import list_ordinary, make_runs

PNG = "png"


@dataclass(frozen=True)
class _Job:
    """What is written where. has_pictures: whether they stand beside. command: that makes the report again."""

    report: Report
    folder: Path
    has_pictures: bool
    command: str


def write_report(report: Report, folder: Path, formats: Collection[str], command: str) -> Iterator[Path]:
    """Writes each format and yields every path when it is there.

    Args:
        report: what to say.
        folder: of all files, made if need be.
        formats: names of `FORMATS`.
        command: that makes the report again.

    Raises:
        StorageError: a file cannot be written.
    """
    make_folder(folder)
    job = _Job(report, folder, PNG in formats, command)
    for name, write in FORMATS.items():
        if name in formats:
            yield from write(job)


def _write_pictures(job: _Job) -> Iterator[Path]:
    yield from draw_pictures(job.report, job.folder)


def _write_markdown(job: _Job) -> Iterator[Path]:
    pictures = list_pictures(job.report) if job.has_pictures else []
    whole = markdown.write_markdown(job.report, job.folder, pictures)
    yield from _write_all(job.folder, {"report.md": whole, "statement.md": markdown.write_statement(job.report) + "\n"})


def _write_latex(job: _Job) -> Iterator[Path]:
    named = list_pictures(job.report) if job.has_pictures else []
    pictures = [(f"../{name}", caption) for name, caption in named]
    yield from _write_all(job.folder / "latex", latex.write_latex(job.report, pictures))


def _write_csv(job: _Job) -> Iterator[Path]:
    yield from _write_all(job.folder / "csv", csv_files.write_csv(job.report))


def _write_json(job: _Job) -> Iterator[Path]:
    if job.report.claims:
        yield from _write_all(job.folder, {"claims.json": dump_claims(job.report)})


def _write_page(job: _Job) -> Iterator[Path]:
    path = job.folder / "report.html"
    details = [make_runs(job.report, group) for group in job.report.groups]
    write_page(job.report, list_ordinary(job.report), details, path, job.command)
    yield path


def _write_all(folder: Path, texts: dict[str, str]) -> Iterator[Path]:
    make_folder(folder)
    for name, text in texts.items():
        write_text(folder / name, text)
        yield folder / name


# Name of a format -> who writes it, in this order: documents after their pictures.
FORMATS: dict[str, Callable[[_Job], Iterator[Path]]] = {
    PNG: _write_pictures,
    "md": _write_markdown,
    "latex": _write_latex,
    "csv": _write_csv,
    "json": _write_json,
    "html": _write_page,
}
