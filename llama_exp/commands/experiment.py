"""`llama-exp experiment`: a published claim in small, from one command to its verdict and its page."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from rich.console import Console

from llama_exp.commands.experiment_table import show_experiments
from llama_exp.commands.parser import Parser
from llama_exp.errors import ConfigError, ExitCode, Problem
from llama_exp.experiments.catalogue import list_experiments
from llama_exp.experiments.conduct import conduct, write_command
from llama_exp.experiments.plan import Plan, make_plan
from llama_exp.experiments.request import Request
from llama_exp.experiments.standing import find_standing
from llama_exp.experiments.verdicts import list_uncomputed
from llama_exp.files.redact import redact_arguments
from llama_exp.files.shown_path import show_path
from llama_exp.limits.protocol import MODELS, Half
from llama_exp.preset import local
from llama_exp.report.terminal import show
from llama_exp.run import provenance

BOTH = "both"
PAGES = "docs/experiments"
_PAGE = f"run nothing: write NAME.md, its pictures and the index into this folder (default: {PAGES})"
_HALF = "first (default): small models that it trains itself; pretrained: on a model of yours"
_PRESET = "a model that the pretrained half needs, such as smollm2=<folder or .gguf file>"


def main(arguments: list[str]) -> int:
    """Runs experiments, lists them, or writes a page; returns the exit code."""
    options = _parser().parse_intermixed_args(arguments)
    _refuse_pairs(options)
    if options.all:
        return _run_all(options, arguments)
    if not options.words:
        show_experiments(list_experiments(options.config_dir), options.config_dir, Console())
        return ExitCode.OK
    request = _read_request(options.words[0], options.words[1:], options)
    if options.page is not None:
        return _write_page(request, Path(options.page).expanduser())
    return _run(make_plan(request, _count_cores()), arguments, options.dry_run)[0]


def _run(plan: Plan, arguments: list[str], is_dry: bool) -> tuple[ExitCode, list[str]]:
    """The exit code, and the claims whose verdict could not be computed."""
    program = provenance.program(sys.argv)
    if is_dry:
        _show_plan(plan, program)
        return ExitCode.OK, []
    command = shlex.join([*program, "experiment", *redact_arguments(arguments)])
    ended = conduct(plan, program, command)
    if ended.report is None:
        return ended.code, []
    print()
    show(ended.report, Console())
    folder = show_path(plan.request.folder)
    print(f"\nall of it: {shlex.join([*program, 'report', folder])}", flush=True)
    return ended.code, list_uncomputed(ended.report.claims, [step.name for step in plan.steps])


def _run_all(options: argparse.Namespace, arguments: list[str]) -> int:
    """Every experiment to its verdicts; 7 where one could not be computed, or runs failed."""
    entries = list_experiments(options.config_dir)
    wrong = []
    for entry in entries:
        print(f"\n== {entry.name}", flush=True)
        plan = make_plan(_read_request(entry.name, options.words, options), _count_cores())
        own = [word for word in arguments if word != "--all"]
        code, uncomputed = _run(plan, [entry.name, *own], options.dry_run)
        if code not in (ExitCode.OK, ExitCode.SWEEP):
            return code
        wrong += [f"{entry.name}: {name}" for name in uncomputed]
        wrong += [f"{entry.name}: runs failed"] if code else []
    if wrong:
        print(f"\nnot computed: {'; '.join(wrong)}", file=sys.stderr)
    return ExitCode.SWEEP if wrong else ExitCode.OK


def _refuse_pairs(options: argparse.Namespace) -> None:
    """Raises `ConfigError` for options that cannot be meant together."""
    named = [word for word in options.words[:1] if "=" not in word]
    if options.all and named:
        raise ConfigError(Problem("is for all experiments", "--all", named[0], "leave the name out, or --all"))
    if options.page is not None and (options.all or not options.words):
        raise ConfigError(Problem("is the page of one experiment", "--page", "no name", "name the experiment"))


def _read_request(name: str, extra: list[str], options: argparse.Namespace) -> Request:
    if "=" in name:
        action = "llama-exp experiment NAME [overrides]; without a name it lists all"
        raise ConfigError(Problem("the name of an experiment comes first", "llama-exp experiment", name, action))
    halves = frozenset(Half) if options.half == BOTH else frozenset({Half(options.half)})
    return Request(
        name, options.quick, halves, _read_models(options.preset), tuple(extra), options.config_dir, options.stage
    )


def _read_models(given: list[str]) -> dict[str, str]:
    """Name -> source of each model that the user gave, on the command line or by a variable."""
    models = {name: os.environ[variable] for name, variable in MODELS.items() if os.environ.get(variable)}
    for text in given:
        name, has_value, source = text.partition("=")
        if name not in MODELS or not has_value or not source:
            action = f"write --preset NAME=<folder or file>, NAME one of {', '.join(MODELS)}"
            raise ConfigError(Problem("names no model of an experiment", "--preset", text, action))
        models[name] = source
    for name, source in models.items():
        if "://" not in source:
            local.find(source, f"--preset {name}")
    return models


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _show_plan(plan: Plan, program: list[str]) -> None:
    for number, step in enumerate(plan.steps, start=1):
        told = find_standing(step.folder, step.num_runs)
        print(f"stage {number} of {len(plan.steps)}: {step.name}, half {step.half.value}, {told}, in {step.folder}")
        print(f"  {write_command(program, step)}\n")


def _write_page(request: Request, folder: Path) -> int:
    from llama_exp.experiments.page import write_page  # Matplotlib

    for path in write_page(request, folder):
        print(f"written: {show_path(path)}")
    return ExitCode.OK


def _parser() -> Parser:
    parser = Parser(
        "experiment",
        "Runs a published experiment in small: its stages one after the other, each an ordinary sweep whose command\n"
        "is printed, then the verdicts on its claims. What has finished is left alone, what was cut off goes on: the\n"
        "same command again is always right. Without a name: what there is.",
        [
            "llama-exp experiment",
            "llama-exp experiment rslora --quick",
            "llama-exp experiment rslora --half both --preset smollm2=SmolLM2-135M",
            "llama-exp experiment rslora --page",
        ],
    )
    parser.add_argument("words", nargs="*", metavar="NAME", help="of the experiment; then overrides of all its runs")
    parser.add_argument("--quick", action="store_true", help="the quick variant: does everything work?")
    halves = [*(half.value for half in Half), BOTH]
    parser.add_argument("--half", choices=halves, default=Half.first.value, help=_HALF)
    parser.add_argument("--preset", action="append", default=[], metavar="NAME=SOURCE", help=_PRESET)
    parser.add_argument("--stage", metavar="NAME", help="only this stage, and those that it needs")
    parser.add_argument("--all", action="store_true", help="all experiments, one after the other")
    parser.add_argument("--page", metavar="FOLDER", nargs="?", const=PAGES, help=_PAGE)
    parser.add_argument("--dry-run", action="store_true", help="show the commands, and run nothing")
    parser.add_argument("--config-dir", metavar="FOLDER", help="your own experiment/ and other choices")
    return parser
