"""`llama-exp diff`: what differs between two runs, and from which step on their metrics part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llama_exp.commands.parser import Parser
from llama_exp.errors import ExitCode
from llama_exp.files.json_text import dump_json
from llama_exp.reproduction.comparison import Comparison, compare
from llama_exp.reproduction.shown import show_value


def main(arguments: list[str]) -> int:
    """Prints the comparison; returns the exit code."""
    options = _parser().parse_args(arguments)
    comparison = compare(Path(options.one), Path(options.other))
    if options.json:
        print(dump_json(comparison.to_data(), indent=1))
    else:
        _show(comparison, Console())
    return ExitCode.DIFFERENT if options.exit_code and not comparison.outcome.is_same else ExitCode.OK


def _show(comparison: Comparison, console: Console) -> None:
    for mark, name in zip("-+", comparison.names, strict=True):
        console.print(f"{mark} {name}", highlight=False, markup=False, soft_wrap=True)
    console.print()
    if comparison.differences:
        _print(console, ("part", "what", "-", "+", "can change"), comparison.list_differences())
    else:
        console.print("recorded: no difference in configuration, code, versions, machine, data or model")
    console.print()
    for line in comparison.say_results():
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print()
    _print(console, ("figure", "-", "+", "difference"), comparison.list_figures())


def _print(console: Console, titles: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    table = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(show_value, row))
    console.print(table, highlight=False, markup=False)


def _parser() -> Parser:
    parser = Parser(
        "diff",
        "Says what differs between two runs: configuration, data, preset, code, versions, machine; from which step\n"
        "on their metrics part, and how far; and their final figures side by side.",
        [
            "llama-exp diff outputs/default/latest outputs/default/2026-01-31_12-00-00_1a2b3c",
            "llama-exp diff RUN RUN --json",
            "llama-exp diff RUN run.tar.gz --exit-code",
        ],
    )
    parser.add_argument("one", metavar="RUN", help="a run's folder, or an archive of llama-exp pack")
    parser.add_argument("other", metavar="RUN", help="another one")
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")
    parser.add_argument("--exit-code", action="store_true", help="8 if the results differ, as `git diff --exit-code`")
    return parser
