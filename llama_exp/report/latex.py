r"""A report as LaTeX: tables with booktabs for a paper, each in a file of its own, and a document that has all of them.

Every row stands below comments that name its runs. The files ask for `\usepackage{booktabs,graphicx}`; they compile
with pdflatex, and so letters that its fonts lack are written by their numbers: U+4E2D.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from llama_exp.report.contents import Cell, Report, Table
from llama_exp.report.links import describe_runs, one_line
from llama_exp.report.tables import list_tables

PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\usepackage[margin=2.5cm]{geometry}
\usepackage{booktabs,graphicx}
"""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    '"': r"\textquotedbl{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # behind a line break it would be its distance
    "*": "{*}",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "–": r"\textendash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")
_MOST_RUNS = 50  # in the comments of a row


def write_latex(report: Report, pictures: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Name of a file -> its text: one for each table, `statement.tex`, and `report.tex`, which reads them.

    Args:
        report: what to say.
        pictures: path of a file as the document finds it, and what it shows.
    """
    files = {f"{table.name}.tex": _table(report, table) for table in list_tables(report)}
    files["statement.tex"] = _statement(report)
    body = [f"\\input{{{name}}}" for name in files]
    body[-1:-1] = [_picture(path, caption) for path, caption in pictures]
    head = f"{PREAMBLE}\\title{{{escape(report.title)}}}\n\\date{{}}\n\\begin{{document}}\n\\maketitle"
    notes = "\n\n".join(map(escape, report.notes))
    return {**files, "report.tex": "\n\n".join([head, notes, *body, "\\end{document}\n"])}


def escape(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(map(_escape, one_line(text))).replace("--", "-{}-")  # else one longer dash


def _escape(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii():
        return character
    plain = unicodedata.normalize("NFD", character)[:1]
    is_latin = plain.isascii() and plain.isalpha() and ord(character) < 0x180
    return character if is_latin else f"U+{ord(character):04X}"


def _table(report: Report, table: Table) -> str:
    kinds = "".join("r" if column.is_number else "l" for column in table.columns)
    are_numbers = [column.is_number for column in table.columns]
    head = " & ".join(escape(column.title) for column in table.columns)
    rows = [f"{_comment(report, row)}{' & '.join(map(_cell, row, are_numbers))} \\\\" for row in table.rows]
    notes = " ".join(map(escape, table.notes))
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            r"\small",
            f"\\caption{{{escape(table.title)}}}",
            f"\\label{{tab:{table.name}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{{kinds}}}",
            r"\toprule",
            f"{head} \\\\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            f"\\par\\medskip\\begin{{minipage}}{{\\linewidth}}\\footnotesize {notes}\\end{{minipage}}",
            "\\end{table}\n",
        ]
    )


def _comment(report: Report, row: Sequence[Cell]) -> str:
    numbers = list(dict.fromkeys(run for cell in row for run in cell.runs))
    lines = describe_runs(report, numbers[:_MOST_RUNS])
    lines += [f"and {len(numbers) - _MOST_RUNS} runs more"] if len(numbers) > _MOST_RUNS else []
    return "".join(f"% {line}\n" for line in lines)


def _cell(cell: Cell, is_number: bool) -> str:
    text = escape(cell.text)
    if is_number:
        text = _MINUS.sub("$-$", text)
    return f"\\textbf{{{text}}}" if cell.is_best or cell.verdict is not None else text


def _statement(report: Report) -> str:
    paragraphs = [f"\\paragraph{{{escape(part.title)}.}} {escape(part.text)}" for part in report.statement]
    return "\n\n".join([r"\section*{Reproducibility statement}", *paragraphs]) + "\n"


def _picture(path: str, caption: str) -> str:
    return "\n".join(
        [
            r"\begin{figure}[htbp]",
            r"\centering",
            f"\\includegraphics[width=\\linewidth]{{{path}}}",
            f"\\caption{{{escape(caption)}.}}",
            r"\end{figure}",
        ]
    )
