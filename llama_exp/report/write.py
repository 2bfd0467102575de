"""A report into a folder, in the formats that are asked for. Files of the same names are replaced, others stay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from llama_exp.files.writing import make_folder, write_text
from llama_exp.report import csv_files, latex, markdown
from llama_exp.report.contents import Report
from llama_exp.report.pictures import draw_pictures, list_pictures

PNG = "png"


def write_report(report: Report, folder: Path, formats: Collection[str]) -> Iterator[Path]:
    """Writes each format and yields every path when it is there; the documents come after their pictures.

    Args:
        report: what to say.
        folder: of all files, made if need be.
        formats: names of `FORMATS`.

    Raises:
        StorageError: a file cannot be written.
    """
    make_folder(folder)
    has_pictures = PNG in formats
    for name, write in FORMATS.items():
        if name in formats:
            yield from write(report, folder, has_pictures)


def _write_pictures(report: Report, folder: Path, has_pictures: bool) -> Iterator[Path]:
    yield from draw_pictures(report, folder)


def _write_markdown(report: Report, folder: Path, has_pictures: bool) -> Iterator[Path]:
    pictures = list_pictures(report) if has_pictures else []
    statement = markdown.write_statement(report) + "\n"
    yield from _write_all(folder, {"report.md": markdown.write_markdown(report, folder, pictures)})
    yield from _write_all(folder, {"statement.md": statement})


def _write_latex(report: Report, folder: Path, has_pictures: bool) -> Iterator[Path]:
    pictures = [(f"../{name}", caption) for name, caption in list_pictures(report)] if has_pictures else []
    yield from _write_all(folder / "latex", latex.write_latex(report, pictures))


def _write_csv(report: Report, folder: Path, has_pictures: bool) -> Iterator[Path]:
    yield from _write_all(folder / "csv", csv_files.write_csv(report))


def _write_all(folder: Path, texts: dict[str, str]) -> Iterator[Path]:
    make_folder(folder)
    for name, text in texts.items():
        write_text(folder / name, text)
        yield folder / name


# Name of a format -> who writes it, given the report, the folder, and whether the pictures stand beside; in this order.
FORMATS: dict[str, Callable[[Report, Path, bool], Iterator[Path]]] = {
    PNG: _write_pictures,
    "md": _write_markdown,
    "latex": _write_latex,
    "csv": _write_csv,
}
