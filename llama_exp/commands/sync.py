"""`llama-exp sync`: what a run recorded, sent to W&B, TensorBoard, a CSV table or MLflow once it is over.

    config.yaml, run.json, metrics.jsonl, samples.md, summary.json  ->  the mirror, as if it had watched the run

The record decides: a mirror that has part of the run, or none of it, has all of it afterwards. W&B and MLflow get the
rows that they lack; the other two are written anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from llama_exp.commands.parser import Parser, positive
from llama_exp.config.identity import flatten
from llama_exp.config.loggers import SECTION, TARGET
from llama_exp.errors import ConfigError, ExitCode, InputError, LlamaExpError
from llama_exp.files.evaluation_file import ROWS, read_evaluations
from llama_exp.files.json_file import read_record
from llama_exp.files.latest import without_latest
from llama_exp.files.lock import FolderLock
from llama_exp.files.metrics_file import read_metrics, read_samples
from llama_exp.files.shown_path import show_path
from llama_exp.files.yaml_file import read_yaml
from llama_exp.limits.logger import LoggerMode
from llama_exp.logger import CsvLogger, MlflowLogger, TensorBoardLogger, WandbLogger, wandb_session
from llama_exp.logger.mirror import Mirror, identify
from llama_exp.logger.needed import find_credential_problems, find_missing_package
from llama_exp.run.unfinished import RECORD_FILE, load_run_record

DEFAULT_SECONDS = 300
_FACTS = ("backend", "device", "threads", "config_hash")
_TARGETS = {"tensorboard": "llama_exp.logger.TensorBoardLogger", "mlflow": "llama_exp.logger.MlflowLogger"}
_EXPORTS = ("adapter", "model")


def main(arguments: list[str]) -> int:
    """Sends every run that the command line names; returns the exit code."""
    options = _parser().parse_args(arguments)
    _require(options)
    folders = list(dict.fromkeys(run for path in options.folders for run in find_runs(Path(path).expanduser())))
    console, code = Console(), ExitCode.OK
    try:
        for number, folder in enumerate(folders, start=1):
            place = f"{number}/{len(folders)} {show_path(folder)}"
            try:
                outcome = _send_alone(folder, options)
            except LlamaExpError as error:
                code = code or error.exit_code
                console.print(f"{place}: not sent", style="bold red", highlight=False, soft_wrap=True)
                console.print(str(error), markup=False, highlight=False, soft_wrap=True)
            else:
                console.print(f"{place}: {outcome}", markup=False, highlight=False, soft_wrap=True)
    finally:
        wandb_session.shut_down()
    return int(code)


def find_runs(path: Path) -> Iterator[Path]:
    """The run in a folder, or those of a sweep's folder in the order of their numbers.

    Raises:
        InputError: there is none.
    """
    path = Path(os.path.abspath(without_latest(str(path))))  # a run's name is part of what it is known by
    found = [path] if (path / RECORD_FILE).is_file() else [file.parent for file in path.glob(f"*/{RECORD_FILE}")]
    if not found:
        action = "name a run's folder, outputs/<name>/<run>, or a sweep's, outputs/<name>/sweeps/<sweep>"
        raise InputError.about(show_path(path), "holds no run and no sweep", f"no {RECORD_FILE}", action)
    yield from sorted(found, key=_number)


def _send_alone(folder: Path, options: argparse.Namespace) -> str:
    """Sends a run that no process is making meanwhile; raises BusyError if one is."""
    lock = FolderLock(folder)
    try:
        return send(folder, options, Console(stderr=True))
    finally:
        lock.release()


def send(folder: Path, options: argparse.Namespace, console: Console) -> str:
    """Tells one run to its mirror, row by row.

    Returns:
        What was written where.

    Raises:
        InputError: the record is damaged, or the mirror broke.
        ConfigError: the mirror cannot be made as it was asked for.
    """
    record, config = load_run_record(folder), read_yaml(folder, "config.yaml")
    rows, samples = read_metrics(folder / "metrics.jsonl"), read_samples(folder / "samples.md")
    evaluations = read_evaluations(folder / ROWS)
    summary = read_record(folder / "summary.json") or {}
    mirror = _make(folder, config, record, options)
    mirror.on_start({key: record[key] for key in _FACTS if key in record})
    shown = track(rows, folder.name, console=console, disable=not console.is_terminal, transient=True)
    for index, row in enumerate(shown):
        mirror.on_metrics(row)
        if index + 1 == len(rows) or rows[index + 1]["step"] != row["step"]:
            for sample in samples:
                if sample[0] == row["step"] and hasattr(mirror, "on_sample"):
                    mirror.on_sample(*sample)
            for evaluation in evaluations:
                if evaluation["step"] == row["step"]:
                    mirror.on_evaluation(evaluation)
    mirror.on_finish(str(summary.get("status", "running")))
    if isinstance(mirror, WandbLogger):
        mirror.on_export(next((folder / name for name in _EXPORTS if (folder / name).is_dir()), None))
    if mirror.failure is not None:
        action = "the run folder has everything: run the same command again, or give it longer with --timeout"
        raise InputError.about(show_path(folder), f"could not be sent to {options.to}", mirror.failure, action)
    return mirror.outcome


def _require(options: argparse.Namespace) -> None:
    """Raises ConfigError where no run at all could be sent."""
    if options.to == "wandb":
        problems = list(find_credential_problems(LoggerMode(options.mode)))
        action = "run `wandb login` once, or set the environment variable WANDB_API_KEY, or give --mode offline"
        problems = [dataclasses.replace(problem, where="--mode", action=action) for problem in problems]
    else:
        problems = list(find_missing_package(_TARGETS.get(options.to, ""), "--to"))
    if problems:
        raise ConfigError(*problems)


def _make(folder: Path, config: dict[str, Any], record: dict[str, Any], options: argparse.Namespace) -> Mirror:
    """The mirror that the command line asks for."""
    common: dict[str, Any] = {
        "folder": folder,
        "name": f"{config.get('name')}/{folder.name}",
        "group": folder.parent.name if folder.parent.parent.name == "sweeps" else None,
        "config": flatten(config),
    }
    section = _mapping(config, SECTION)
    if options.to == "tensorboard":
        return TensorBoardLogger(**common)
    if options.to == "csv":
        return CsvLogger(**common)
    if options.to == "mlflow":
        own = _mapping(section, "mlflow")
        experiment = options.project or own.get("experiment") or str(config.get("name"))
        return MlflowLogger(own.get("tracking_uri"), experiment, **common)
    own = section if section.get(TARGET) == "llama_exp.logger.WandbLogger" else {}
    known = _mapping(_mapping(record, SECTION), SECTION)
    return WandbLogger(
        options.mode,
        options.project or own.get("project"),
        options.entity or own.get("entity"),
        own.get("tags"),
        bool(own.get("log_model")),
        **common,
        run_id=known.get("run_id") or identify(folder),
        falls_back=False,
        finish_seconds=float(options.timeout),
    )


def _mapping(node: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping under a key, or {}."""
    found = node.get(key)
    return found if isinstance(found, dict) else {}


def _number(folder: Path) -> tuple[int, str]:
    """A job's number in its sweep, which its folder's name begins with."""
    digits = folder.name.partition("_")[0]
    return (int(digits) if digits.isdecimal() else 0, folder.name)


def _parser() -> Parser:
    parser = Parser(
        "sync",
        "Sends runs from their record: the server gets the rows that it lacks, whatever it has.\n"
        "Also for runs that were offline, lost their server, or had no logger at all.",
        [
            "llama-exp sync outputs/default/latest",
            "llama-exp sync outputs/default/sweeps/2026-01-31_12-00-00 --project trials",
            "llama-exp sync outputs/default/latest --to tensorboard",
        ],
    )
    parser.add_argument("folders", nargs="+", metavar="RUN|SWEEP", help="folders of runs or sweeps")
    choices = ("wandb", "tensorboard", "csv", "mlflow")
    parser.add_argument("--to", choices=choices, default="wandb", help="where to (default: wandb)")
    mode_help = "W&B: send now, or write the files for `wandb sync` into the run folder (default: online)"
    parser.add_argument("--mode", choices=("online", "offline"), default="online", help=mode_help)
    project_help = "W&B project or MLflow experiment (default: the run's, else as for a run)"
    parser.add_argument("--project", metavar="NAME", help=project_help)
    parser.add_argument("--entity", metavar="NAME", help="W&B team or user (default: likewise)")
    timeout_help = f"how long the end of one run may take to send (default: {DEFAULT_SECONDS})"
    parser.add_argument("--timeout", type=positive, default=DEFAULT_SECONDS, metavar="SECONDS", help=timeout_help)
    return parser
