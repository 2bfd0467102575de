"""`llama-exp reproduce`: a recorded run once more, and whether its results are the same."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from llama_exp.commands.parser import Parser, positive
from llama_exp.console import logs
from llama_exp.errors import ExitCode
from llama_exp.files.process import ALONE
from llama_exp.files.shown_path import show_path
from llama_exp.reproduction import repeat, shown
from llama_exp.reproduction.verdict import Ending


def main(arguments: list[str]) -> int:
    """Repeats the run, or with --check only compares the states; returns the exit code."""
    options = _parser().parse_intermixed_args(arguments)  # overrides may stand behind options
    request = _request(options)
    console = Console()
    logs.attach_console(ALONE)
    prepared = repeat.prepare(request)
    if options.check:
        differences = repeat.check(prepared)
        rows = [*shown.list_lines(differences), ("compared", repeat.say_comparison(prepared))]
        _print(console, [*rows, ("expected", repeat.say_expectation(differences, prepared))])
        return ExitCode.OK
    verdict, folder = repeat.repeat(prepared, request)
    rows = [("reproduction", verdict.ending.value), *(("", reason) for reason in verdict.reasons)]
    rows += [("folder", show_path(folder))]
    if verdict.ending is not Ending.identical:
        rows += [("to compare", f"llama-exp diff {prepared.original.run.folder} {show_path(folder)}")]
    _print(console, rows)
    return ExitCode.DIFFERENT if verdict.ending is Ending.different else ExitCode.OK


def _request(options: argparse.Namespace) -> repeat.Request:
    return repeat.Request(
        Path(options.run),
        folder=None if options.to is None else Path(options.to).expanduser(),
        steps=options.steps,
        overrides=tuple(options.overrides),
        trusted_modules=tuple(options.trust),
        data=None if options.data is None else Path(options.data).expanduser(),
    )


def _print(console: Console, rows: list[tuple[str, str]]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, text in rows:
        table.add_row(name, text)
    console.print(table, highlight=False, markup=False)


def _parser() -> Parser:
    parser = Parser(
        "reproduce",
        "Trains a recorded run once more and compares every row of metrics, the samples and the weights.\n"
        "Says before the first step what differs from then: versions, threads, processor, code, data, preset.\n"
        "Ends 'bit-identical' (exit code 0), 'within tolerance' (0) or 'different' (8).",
        [
            "llama-exp reproduce outputs/default/latest",
            "llama-exp reproduce outputs/default/latest --steps 20",
            "llama-exp reproduce run.tar.gz --data my_texts --check",
        ],
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, or an archive of llama-exp pack")
    parser.add_argument(
        "overrides", nargs="*", metavar="runtime.KEY=VALUE", help="where and how fast: runtime.threads=1"
    )
    parser.add_argument("--steps", type=positive, metavar="N", help="stop after N steps of the whole run's schedule")
    parser.add_argument("--to", metavar="DIR", help="folder of the repetition; one that was cut there goes on")
    parser.add_argument("--data", metavar="DIR", help="where data files are that lie elsewhere now")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="import prefix of classes that the run names, as in trusted_modules; may be repeated",
    )
    parser.add_argument("--check", action="store_true", help="only say what differs; train and write nothing")
    return parser
