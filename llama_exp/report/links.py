"""Where the runs of a cell lie, as a document beside other files may link to them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from llama_exp.files.redact import printable
from llama_exp.report.contents import Report


def link_to(folder: Path, document_folder: Path) -> str:
    """The relative address of a folder, for a document in another one."""
    return quote(os.path.relpath(folder, document_folder.absolute()), safe="/")


def describe_runs(report: Report, numbers: Iterable[int]) -> list[str]:
    """`run 3: <folder>; <command>` for each, on one line each."""
    runs = [report.run(number) for number in numbers]
    return [one_line(f"run {run.number}: {run.folder}; {run.command}") for run in runs]


def one_line(text: str) -> str:
    """The text without line breaks and control characters."""
    return " ".join(printable(text).split())
