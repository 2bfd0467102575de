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
from llama_exp.files.redact import redact_arguments
from llama_exp.limits.protocol import MODELS, Half
from llama_exp.preset import local
from llama_exp.run import provenance

BOTH = "both"
_HALF = "first (default): small models that it trains itself; pretrained: on a model of yours"
_PRESET = "a model that the pretrained half needs, such as smollm2=<folder or .gguf file>"


def main(arguments: list[str]) -> int:
    """Runs an experiment, lists all, or writes a page; returns the exit code."""
    options = _parser().parse_intermixed_args(arguments)
    if not options.words:
        show_experiments(list_experiments(options.config_dir), options.config_dir, Console())
        return ExitCode.OK
    request = _read_request(options)
    plan = make_plan(request, _count_cores())
    program = provenance.program(sys.argv)
    command = shlex.join([*program, "experiment", *redact_arguments(arguments)])
    if options.dry_run:
        _show_plan(plan, program)
        return ExitCode.OK
    code = conduct(plan, program, command)
    if code in (ExitCode.OK, ExitCode.SWEEP):
        _show_verdicts(plan, Console())
    return code


def _read_request(options: argparse.Namespace) -> Request:
    name, extra = options.words[0], tuple(options.words[1:])
    if "=" in name:
        action = "llama-exp experiment NAME [overrides]; without a name it lists all"
        raise ConfigError(Problem("the name of an experiment comes first", "llama-exp experiment", name, action))
    halves = frozenset(Half) if options.half == BOTH else frozenset({Half(options.half)})
    return Request(name, options.quick, halves, _read_models(options.preset), extra, options.config_dir, options.stage)


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


def _show_verdicts(plan: Plan, console: Console) -> None:
    from llama_exp.report import Options, make_report
    from llama_exp.report.terminal import show
    from llama_exp.results import load_runs

    folder: Path = plan.request.folder
    console.print()
    show(make_report(load_runs([folder]), Options()), console)


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
        ],
    )
    parser.add_argument("words", nargs="*", metavar="NAME", help="of the experiment; then overrides of all its runs")
    parser.add_argument("--quick", action="store_true", help="the quick variant: does everything work?")
    halves = [*(half.value for half in Half), BOTH]
    parser.add_argument("--half", choices=halves, default=Half.first.value, help=_HALF)
    parser.add_argument("--preset", action="append", default=[], metavar="NAME=SOURCE", help=_PRESET)
    parser.add_argument("--stage", metavar="NAME", help="only this stage, and those that it needs")
    parser.add_argument("--dry-run", action="store_true", help="show the commands, and run nothing")
    parser.add_argument("--config-dir", metavar="FOLDER", help="your own experiment/ and other choices")
    return parser
