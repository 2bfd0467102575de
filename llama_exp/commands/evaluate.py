"""`llama-exp evaluate`: losses on sets and scores on tasks, of a run, a preset or a model's file."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llama_exp import runtime
from llama_exp.architecture import AS_STORED
from llama_exp.commands import harness_options, models
from llama_exp.commands.parser import Parser, positive
from llama_exp.config.schema.evaluation import EvaluationConfig
from llama_exp.config.stated_evaluation import Stated, compose_evaluation, read_recorded, type_dataset
from llama_exp.console import logs
from llama_exp.console.live import LiveLine, format_seconds
from llama_exp.errors import BusyError, ConfigError, InputError, Problem
from llama_exp.evaluation.build import Parts, Use, build, open_parts
from llama_exp.files.evaluation_file import FOLDER, NO_FIGURES, add_to_summary, append_row
from llama_exp.files.latest import without_latest
from llama_exp.files.lock import is_locked
from llama_exp.files.shown_path import show_path
from llama_exp.files.writing import free_name, make_folder
from llama_exp.limits.evaluation import NAME
from llama_exp.results import RunResult, load_run
from llama_exp.results.run import holds_run
from llama_exp.run.training_rows import find_training_rows

OWN_SET = "validation"  # a run's own validation split
BATCH_SIZE = 8  # where no run says another


@dataclass(frozen=True)
class _Asked:
    """What is evaluated, and where the results go.

    parts: sets and tasks, open. loss_on: which tokens of sets count. batch_size: of the run, where the section states
    none. run: whose folder takes the results; None: it is none, or its model is changed. trained: the run that SRC is,
    changed or not.
    """

    parts: Parts
    loss_on: str
    batch_size: int
    folder: Path
    run: RunResult | None
    trained: RunResult | None


def main(arguments: list[str]) -> int:
    """Evaluates as the command line says; returns the exit code."""
    options = _parser().parse_args(arguments)
    logs.attach_console()
    asked = _read(options)
    make_folder(asked.folder / FOLDER)
    model, source = models.load(options)
    models.require_tokenizer(model, source)
    searched = asked.trained if asked.parts.section.check_overlap else None
    use = Use(
        batch_size=asked.batch_size,
        loss_on=asked.loss_on,
        jit="auto",
        cache_dir=runtime.default_cache_dir(),
        folder=asked.folder,
        keeps=True,
        context_length=options.context_length,
        train=None if searched is None else find_training_rows(searched, model.tokenizer),
    )
    line = LiveLine(lambda columns, ascii_only: (line.phase or "")[: max(columns, 0)])
    line.open()
    try:
        evaluations = build(asked.parts, model, use)
        rows = evaluations.run(
            _step(asked.run), lambda: False, line.show_phase, lambda row: append_row(asked.folder, row)
        )
    finally:
        line.close(leaves=False)
    if asked.run is not None:
        add_to_summary(asked.folder, rows or [])
    show(rows or [], asked.folder, Console())
    return 0


def show(rows: list[dict[str, Any]], folder: Path, console: Console) -> None:
    """Prints a table of the figures, and where the results of each item lie."""
    table = Table(box=None, pad_edge=False)
    for name in ("evaluation", "figure", "value", "", "items", "time"):
        table.add_column(name, justify="left" if name in ("evaluation", "figure", "") else "right")
    for row in rows:
        figures = {key: value for key, value in row.items() if key not in NO_FIGURES and not key.endswith("_error")}
        for number, (figure, value) in enumerate(figures.items()):
            error = row.get(f"{figure}_error")
            first = (str(row["items"]), format_seconds(row["seconds"])) if number == 0 else ("", "")
            shown = "-" if value is None else f"{value:.4f}"
            spread = "" if error is None else f"± {error:.4f}"
            table.add_row(row["name"] if number == 0 else "", figure.replace("_", " "), shown, spread, *first)
    console.print(table, highlight=False)
    console.print(
        f"± is one standard error over the items. Rows and each item's results: {show_path(folder)}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _read(options: argparse.Namespace) -> _Asked:
    """Everything that can be read before the model."""
    folder = Path(without_latest(options.source)).expanduser()
    run = load_run(folder) if holds_run(folder) else None
    stated = Stated(
        options.evaluation,
        _named("--set", options.set),
        _named("--task", options.task),
        harness_options.read(options),
        options.limit,
        options.batch_size,
        tuple(options.trusted_modules or ()),
    )
    with _as_options(stated):
        composed = compose_evaluation(stated)
    section, trusted_modules = composed.evaluation, composed.trusted_modules
    if run is not None and not (stated.evaluation or stated.sets or stated.tasks or stated.harness):
        section, trusted_modules = _of_run(run, options), []
    if not section.sets and not section.tasks:
        action = "give --set <name>=<file>, --task <file.yaml>, --harness <task> or --evaluation python_qa"
        raise ConfigError(Problem("there is nothing to evaluate", "llama-exp evaluate", "no set and no task", action))
    loss_on, batch_size = composed.objective.loss_on.value, BATCH_SIZE
    if run is not None:
        loss_on = run.values.get("objective.loss_on", loss_on)
        batch_size = run.values.get("trainer.batch_size", batch_size)
    target, owner = _target(options, run)
    models.prepare(options.backend)  # reading a data set may import Keras
    with _as_options(stated):
        parts = open_parts(section, trusted_modules, runtime.default_cache_dir())
    return _Asked(parts, loss_on, batch_size, target, owner, run)


@contextlib.contextmanager
def _as_options(stated: Stated) -> Iterator[None]:
    """Messages about keys that options stand for say the options."""

    def renamed(text: str) -> str:
        for name in stated.sets:
            text = text.replace(f"evaluation.sets.{name}.files=", f"--set {name}=")
            text = text.replace(f"evaluation.sets.{name}.files", f"--set {name}")
        return text.replace("add its module prefix to trusted_modules", "give --trusted-modules <its module>")

    try:
        yield
    except (ConfigError, InputError) as error:
        problems = [dataclasses.replace(p, where=renamed(p.where), action=renamed(p.action)) for p in error.problems]
        raise type(error)(*problems) from error


def _of_run(run: RunResult, options: argparse.Namespace) -> EvaluationConfig:
    """What a run's config evaluates, and its own validation split."""
    recorded = run.config.get("evaluation") or {}
    base: dict[str, Any] = {"every_steps": None, "sets": {}, "whole_sets": [], "tasks": {}, "batch_size": None}
    base |= {"limit": None, "check_overlap": True, "at_start": False}
    section = read_recorded({**base, **recorded}, options.limit, options.batch_size)
    if OWN_SET not in section.sets:
        section.sets[OWN_SET] = type_dataset(run.config.get("dataset"))
    return section


def _target(options: argparse.Namespace, run: RunResult | None) -> tuple[Path, RunResult | None]:
    """The folder that takes the results, and the run that it belongs to."""
    changed = [name for name in ("adapter", "precision") if getattr(options, name) is not None]
    changed += ["quantization"] if options.quantization != AS_STORED else []
    if options.to is not None:
        return Path(options.to).expanduser(), None
    if run is not None and not changed:  # else its record would have figures that are not its model's
        if is_locked(run.folder):
            action = "wait until it ends, or give another folder: --to <folder>"
            raise BusyError(Problem("a process is at the run", str(run.folder), "its lock is held", action))
        return run.folder, run
    name = Path(options.source.rstrip("/")).name
    stem = name if NAME.fullmatch(name) else "model"
    time = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return free_name(Path("outputs") / "evaluations" / stem / time), None


def _step(run: RunResult | None) -> int | None:
    summary = {} if run is None else run.summary
    step = summary.get("exported_step", summary.get("steps"))  # the weights that the run left may be earlier ones
    return step if type(step) is int else None


def _named(option: str, words: list[str] | None) -> Mapping[str, str]:
    """Name -> file of `name=file`; of a file alone the name is its own."""
    found: dict[str, str] = {}
    for word in words or ():
        name, equals, file = word.partition("=")
        if not equals:
            name, file = Path(word).name.partition(".")[0], word
        if not file:
            raise ConfigError(Problem("names no file", option, word, f"give {option} <name>=<file>"))
        if name in found:
            action = f"give each a name of its own: {option} {name}_2={file}"
            raise ConfigError(Problem("is given twice", option, name, action))
        found[name] = file
    return found


def _parser() -> Parser:
    parser = Parser(
        "evaluate",
        "Evaluates a model on sets (loss, perplexity, bits per byte) and tasks (multiple choice, generation).\n"
        "Of a run without further options: what its config evaluates, and its own validation split. Rows go to\n"
        "evaluation.jsonl, each item's results to evaluation/, in the run's folder or outputs/evaluations/.",
        [
            "llama-exp evaluate outputs/default/latest",
            "llama-exp evaluate hf://HuggingFaceTB/SmolLM2-135M --evaluation python_qa --limit 100",
            "llama-exp evaluate model.gguf --set docs=notes.txt --set 'code=src/**/*.py' --task quiz.yaml",
        ],
    )
    models.add_arguments(parser)
    parser.add_argument(
        "--evaluation", metavar="NAME|FILE", help="a choice of conf/evaluation, or a YAML file like one"
    )
    parser.add_argument(
        "--set", action="append", metavar="NAME=FILE", help="a set: text or .jsonl, read whole; may be given again"
    )
    parser.add_argument("--task", action="append", metavar="[NAME=]FILE", help="a task's YAML file; may be given again")
    harness_options.add_arguments(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N items of each task (default: all)")
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help=f"rows at a time (default: of a run its own; else {BATCH_SIZE})",
    )
    parser.add_argument("--to", metavar="DIR", help="where the results go (default: see above)")
    parser.add_argument(
        "--trusted-modules", action="append", metavar="PREFIX", help="import prefix of task classes of your own"
    )
    return parser
