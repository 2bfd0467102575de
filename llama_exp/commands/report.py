"""`llama-exp report`: what runs and sweeps have shown, on the terminal and in files for a paper."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.text import Text

from llama_exp.commands.parser import Parser
from llama_exp.errors import ConfigError, Problem, StorageError
from llama_exp.files.redact import redact_arguments
from llama_exp.files.shown_path import show_path
from llama_exp.report import Options, Report, make_report
from llama_exp.report.terminal import show
from llama_exp.report.write import FORMATS, write_report
from llama_exp.results import RunResult, find_run_folders, load_run


def main(arguments: list[str]) -> int:
    """Reports on the runs that the command line names; returns the exit code."""
    options = _parser().parse_args(arguments)
    formats = _split_formats(options)
    report = make_report(_load(options.folders), Options(options.figure, options.baseline, options.confidence))
    console = Console()
    show(report, console)
    if options.to is not None:
        command = shlex.join(["llama-exp", "report", *redact_arguments(arguments)])
        with _named_folder():
            _write(report, Path(options.to).expanduser(), formats, command, console)
    else:
        console.print("\n--to FOLDER writes tables, pictures, CSV files and the reproducibility statement", style="dim")
    return 0


def _load(folders: list[str]) -> list[RunResult]:
    found = find_run_folders(folders)
    console = Console(stderr=True)
    shown = track(found, "reading runs", console=console, disable=not console.is_terminal, transient=True)
    return [load_run(folder, place) for folder, place in shown]


def _write(report: Report, folder: Path, formats: list[str], command: str, console: Console) -> None:
    progress = Console(stderr=True)
    paths = []
    with progress.status(f"writing {show_path(folder)}") as status:
        for path in write_report(report, folder, formats, command):
            paths.append(path)
            status.update(f"writing {show_path(folder)}: {len(paths)} files")
    if not paths:
        console.print("\nnothing written: claims.json holds claims, and these runs state none")
        return
    names = ", ".join(str(path.relative_to(folder)) for path in paths)
    console.print(Text(f"\nwritten: {show_path(folder)}: {names}"), soft_wrap=True)


@contextlib.contextmanager
def _named_folder() -> Iterator[None]:
    """Errors of writing say how this command, and not a run, gets another folder."""
    try:
        yield
    except StorageError as error:
        (problem,) = error.problems
        action = problem.action.replace("hydra.run.dir=<folder>", "--to <folder>").replace(" with resume=auto", "")
        raise StorageError(dataclasses.replace(problem, action=action)) from error


def _split_formats(options: argparse.Namespace) -> list[str]:
    if options.formats is None:
        return list(FORMATS)
    if options.to is None:
        raise ConfigError(Problem("says no folder", "--formats", options.formats, "add --to FOLDER"))
    formats = [name.strip() for name in options.formats.split(",")]
    if unknown := [name for name in formats if name not in FORMATS]:
        action = f"choose among {', '.join(FORMATS)}, with commas between them"
        raise ConfigError(Problem("no such format", "--formats", ", ".join(unknown) or "nothing", action))
    return formats


def _confidence(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text} must be above 0 and below 1, such as 0.95")
    return value


def _parser() -> Parser:
    parser = Parser(
        "report",
        "Ranks the configs of runs and sweeps by a figure, with intervals over seeds, paired comparisons\n"
        "with a baseline, and cost. Where the runs state claims, it judges them. With --to it writes tables,\n"
        "pictures, CSV files and the statement of reproducibility that papers ask for.",
        [
            "llama-exp report outputs/default/sweeps/2026-01-31_12-00-00",
            "llama-exp report outputs/default --baseline lora.rank=8 --to report",
            "llama-exp report outputs/experiments/rslora",
            "llama-exp report outputs/a outputs/b --figure evaluation.docs.accuracy --to report --formats md,png",
        ],
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of runs or sweeps, or above some")
    parser.add_argument("--figure", help="what ranks, with :min or :max behind it where it must be said (default: the"
                        " objective_metric of the runs)")  # fmt: skip
    parser.add_argument("--baseline", metavar="KEY=VALUE,...|FOLDER", help="what all others are compared with (default:"
                        " the config of the first run)")  # fmt: skip
    parser.add_argument("--confidence", type=_confidence, default=0.95, help="of intervals (default: 0.95)")
    parser.add_argument("--to", metavar="FOLDER", help="where files are written (default: none are)")
    parser.add_argument("--formats", help=f"which, with commas between them (default: {','.join(FORMATS)})")
    return parser
