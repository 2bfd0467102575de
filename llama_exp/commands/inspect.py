"""`llama-exp inspect`: what is in the weights that a run left."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from rich.console import Console
from rich.text import Text

from llama_exp.commands.parser import Parser
from llama_exp.errors import InputError, StorageError
from llama_exp.files.json_text import dump_json
from llama_exp.files.latest import without_latest
from llama_exp.files.shown_path import show_path
from llama_exp.files.writing import make_folder
from llama_exp.results import RunResult, find_run_folders, load_run


def main(arguments: list[str]) -> int:
    """Shows what the command line asks for; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.update_rank:
        parser.error("say what to inspect: --update-rank")
    _show_update(_load(options.run), options)
    return 0


def _show_update(run: RunResult, options: argparse.Namespace) -> None:
    from llama_exp.inspection import Options, measure_update, show_update, write_update
    from llama_exp.inspection.update import to_data

    measured = measure_update(run, Options(options.step, options.base, options.relative))
    console = Console()
    if options.json:
        print(dump_json(to_data(measured.update), indent=1))
    else:
        show_update(measured.update, show_path(run.folder), console)
    folder = run.folder if options.to is None else Path(options.to).expanduser()
    try:
        make_folder(folder)
        paths = write_update(measured.update, options.step, measured.key, folder)
    except StorageError as error:
        (problem,) = error.problems
        action = "give a folder that can be written: --to FOLDER; what is printed is whole"
        raise StorageError(dataclasses.replace(problem, action=action)) from error
    if not options.json:
        names = ", ".join(path.name for path in paths)
        console.print(Text(f"\nwritten: {show_path(folder)}: {names}"), soft_wrap=True)


def _load(given: str) -> RunResult:
    """The one run that is meant; where a folder holds several, as a sweep's does, the error names them."""
    try:
        return load_run(given)
    except InputError as error:
        try:
            found = find_run_folders([without_latest(given)])
        except InputError:
            raise error from None
    names = ", ".join(show_path(path) for path, _ in found[:3]) + (", ..." if len(found) > 3 else "")
    raise InputError.about(given, "one run is inspected at a time", f"{len(found)} runs", f"give one of them: {names}")


def _parser() -> Parser:
    parser = Parser(
        "inspect",
        "Looks into the weights that a run left. --update-rank: the singular values of what training changed, of\n"
        "each matrix and each kind of matrix, and the rank of the change: how many of them have 90 % of its squared\n"
        "norm. Writes update_rank.json, .csv and .png into the run's folder. No framework is loaded.",
        [
            "llama-exp inspect outputs/default/latest --update-rank",
            "llama-exp inspect outputs/default/2026-01-31_12-00-00_1a2b3c --update-rank --step 200",
            "llama-exp inspect RUN --update-rank --base hf://HuggingFaceTB/SmolLM2-135M --to figures",
        ],
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument("--update-rank", action="store_true", help="the rank of what training changed")
    parser.add_argument("--step", type=int, help="of a checkpoint (default: what the run exported)")
    parser.add_argument("--base", metavar="SRC", help="the preset that the run started from, where it is now")
    parser.add_argument("--relative", action="store_true", help="of LoRA too: norms relative to the base's, which is"
                        " read for it")  # fmt: skip
    parser.add_argument("--to", metavar="FOLDER", help="where the files are written (default: the run's folder)")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    return parser
