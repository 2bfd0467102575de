"""`llama-exp verify`: a model against a reference, and a user's own configuration against itself.

Exit code 0: all is within its tolerance, or bit-identical. 1: something is not.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from llama_exp.architecture import AS_STORED
from llama_exp.commands import merge, models, verify_coordinates
from llama_exp.commands.export import DTYPES
from llama_exp.commands.parser import Parser, positive
from llama_exp.commands.telling import told
from llama_exp.console import logs
from llama_exp.errors import ConfigError, Problem
from llama_exp.formats import open_adapter
from llama_exp.formats.quantized import dequantize_checkpoint
from llama_exp.verification import invariances, parity, resumption
from llama_exp.verification.parity import Difference
from llama_exp.verification.subject import compose

# Relative, by what the products are computed in; a wrong head, mask, order or epsilon is 0.01 and more.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
QUANTIZED_TOLERANCE = 0.2  # where the model rounds activations to integers, the reference does not
SEED = 0
DEFAULT_TOKENS = 16
ONLY = "--only"
SHOWN_DIFFERENCES = 10


def main(arguments: list[str]) -> int:
    """Verifies as the command line says; returns the exit code."""
    check, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if check not in CHECKS:
        _parser().parse_args([check])
    return CHECKS[check](rest)


def verify_parity(arguments: list[str]) -> int:
    """A model's hidden states against a NumPy forward pass."""
    options = _parity_parser().parse_args(arguments)
    logs.attach_console()
    options.precision = options.precision or "float32"
    model, source = models.load(options)
    token_ids_BS = np.random.default_rng(SEED).integers(0, model.backbone.vocabulary_size, (1, options.tokens))
    with merge.open_base(source) as checkpoint, contextlib.ExitStack() as adapters:
        if source.adapter is not None:
            checkpoint = merge.merge_adapter(
                checkpoint, adapters.enter_context(open_adapter(source.adapter, checkpoint.config))
            )
        elif checkpoint.quantization is not None:
            checkpoint = dequantize_checkpoint(checkpoint)
        dtype = DTYPES[model.backbone.variable_dtype]
        differences = parity.compare(model, checkpoint, token_ids_BS, dtype, _watch)
    tolerance = options.tolerance or _tolerance(model.backbone)
    wrong = parity.first_deviation(differences, tolerance)
    _show_parity(differences, wrong, tolerance)
    return 0 if wrong is None else 1


def verify_invariances(arguments: list[str]) -> int:
    """A training step of a configuration against the same step computed another way."""
    if {"-h", "--help"} & set(arguments):
        print(INVARIANCES_HELP)
        return 0
    only, overrides = _take_only(arguments)
    config = compose(overrides, "llama-exp verify invariances")
    logs.attach_console()
    with told() as tell:
        outcomes, tolerances = invariances.verify(config, overrides, only, tell)
    _show_invariances(outcomes, tolerances)
    return 0 if all(invariances.is_right(outcome, tolerances) for outcome in outcomes) else 1


def verify_resume(arguments: list[str]) -> int:
    """A run that was stopped and continued against one that was not."""
    if {"-h", "--help"} & set(arguments):
        print(RESUME_HELP)
        return 0
    with told() as tell:
        found = resumption.verify(arguments, tell)
    console = Console()
    where = f"stopped at step {found.stopped_at} and continued to step {found.steps}"
    if not found.differences:
        text = f"bit-identical: {where}, {found.num_arrays} arrays and {found.num_rows} rows of metrics are the same"
        console.print(text, highlight=False, soft_wrap=True)
        return 0
    title = f"different: {where}, {len(found.differences)} things are not as in a run without a stop"
    console.print(title, style="bold red", highlight=False, soft_wrap=True)
    for line in found.differences[:SHOWN_DIFFERENCES]:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    if len(found.differences) > SHOWN_DIFFERENCES:
        console.print(f"  and {len(found.differences) - SHOWN_DIFFERENCES} more", highlight=False)
    return 1


# What follows `llama-exp verify` -> what does it.
CHECKS: dict[str, Callable[[list[str]], int]] = {
    "parity": verify_parity,
    "invariances": verify_invariances,
    "resume": verify_resume,
    "coordinates": verify_coordinates.main,
}
INVARIANCES_HELP = f"""usage: llama-exp verify invariances [--only CHECK,...] [<part>=<choice> | <key>=<value> ...]

Computes one training step of what `llama-exp train` would do with the same command line, without
its update, and then the same step in other ways that must agree to rounding: a few rows of your
data, your model, your preset, your precision. Dropout is off. Loss and the gradient of every
trainable variable are compared. Exit code 0: all agree; 1: one does not.

checks:
  batch order   the rows in another order
  accumulation  k micro-batches of b rows against one of k * b
  packing       each document in a row of its own
  padding       more padding behind the last token
  chunked loss  chunks of other sizes
  remat         what the backward pass computes again: none, attention, block
  fast paths    with XLA, with parts by XLA, without
  decoding      token by token, with a cache and with the kernels for a CPU
  backend       TensorFlow against JAX, in a process of its own

options:
  {ONLY} CHECK,...  these checks; underscores stand for spaces: batch_order

examples:
  llama-exp verify invariances
  llama-exp verify invariances model=smollm2_135m lora.rank=8 precision=bfloat16 trainer.batch_size=2
  llama-exp verify invariances {ONLY} packing,padding dataset=jsonl dataset.files=[chats.jsonl]"""
RESUME_HELP = f"""usage: llama-exp verify resume [<part>=<choice> | <key>=<value> ...]

Trains the first {resumption.STEPS} steps of what `llama-exp train` would do with the same command line, twice: at
a stretch, and with a stop after {resumption.STEPS // 2}, from where another process goes on. Compares every bit of
weights, optimizer and seeds, the position in the data, the state of your callbacks and every row
of metrics. Everything lies in a temporary folder (TMPDIR). Exit code 0: bit-identical; 1: not.

examples:
  llama-exp verify resume
  llama-exp verify resume experiment=python_qa_lora runtime.backend=jax"""


def _watch(steps, total: int):
    """The steps of the reference, with a bar on a terminal."""
    console = Console(stderr=True)
    return track(steps, "reference", total=total, console=console, disable=not console.is_terminal, transient=True)


def _take_only(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of checks that were asked for (empty: all), and the other arguments."""
    rest, names, expects = [], [], False
    for argument in arguments:
        key, is_joined, value = argument.partition("=")
        if expects or (key == ONLY and is_joined):
            names += (argument if expects else value).split(",")
            expects = False
        elif argument == ONLY:
            expects = True
        else:
            rest.append(argument)
    known = {name.replace(" ", "_"): name for name in invariances.CHECKS}
    wrong = [name for name in names if name.strip().replace(" ", "_") not in known]
    if wrong or expects:
        found = ", ".join(wrong) or "nothing behind it"
        raise ConfigError(Problem("no such check", ONLY, found, f"give some of: {', '.join(known)}"))
    return [known[name.strip().replace(" ", "_")] for name in names], rest


def _show_invariances(outcomes: Sequence[invariances.Outcome], tolerances: tuple[float, float]) -> None:
    console, table = Console(), Table(box=None, pad_edge=False)
    for title in ("check", "farthest off"):
        table.add_column(title)
    for title in ("loss", "gradients"):
        table.add_column(title, justify="right")
    for one in outcomes:
        style = "" if invariances.is_right(one, tolerances) else "bold red"
        cells = (one.name, f"skipped: {one.reason}", "", "")
        if one.error is not None:
            cells = (one.name, one.way, f"{one.error.loss:.1e}", f"{one.error.gradient:.1e}")
        table.add_row(*(Text(text, style) for text in cells))
    console.print(table)
    wrong = next((one for one in outcomes if not invariances.is_right(one, tolerances)), None)
    allowed = f"tolerance {tolerances[0]:g} for the loss, {tolerances[1]:g} for gradients, relative"
    if wrong is not None and wrong.error is not None:
        error = f"loss {wrong.error.loss:.2g}, gradient of {wrong.error.variable} {wrong.error.gradient:.2g}"
        text = f"{wrong.name} is the first that fails ({wrong.way}): {error}; {allowed}"
        console.print(text, style="bold red", highlight=False, soft_wrap=True)
    else:
        count = sum(one.error is not None for one in outcomes)
        console.print(f"{count} of {len(outcomes)} checks agree; {allowed}", highlight=False, soft_wrap=True)


def _tolerance(backbone) -> float:
    stored = backbone.quantization
    if stored is not None and stored.quantize_activations:
        return QUANTIZED_TOLERANCE
    return TOLERANCES[backbone.compute_dtype]


def _show_parity(differences: list[Difference], wrong: Difference | None, tolerance: float) -> None:
    console, table = Console(), Table(box=None, pad_edge=False)
    table.add_column("layer")
    for title in ("largest difference", "relative"):
        table.add_column(title, justify="right")
    for one in differences:
        style = "bold red" if one is wrong else ""
        table.add_row(*(Text(text, style) for text in (one.layer, f"{one.largest:.3g}", f"{one.relative:.3g}")))
    console.print(table)
    if wrong is None:
        console.print(f"equal within {tolerance:g}, relative", highlight=False)
    else:
        text = f"{wrong.layer} is the first to deviate: {wrong.relative:.3g}, tolerance {tolerance:g}"
        console.print(text, style="bold red", highlight=False, soft_wrap=True)


def _above_zero(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return number


def _parser() -> Parser:
    parser = Parser(
        "verify",
        "Checks that what is computed is right: a model against a reference that shares no code with it, or\n"
        "your own configuration against itself. Each check has its own --help.",
        [
            "llama-exp verify parity llama3.2_1b",
            "llama-exp verify invariances model=llama_15m dataset=python_qa",
            "llama-exp verify resume experiment=python_qa_lora",
        ],
    )
    parser.add_argument(
        "check",
        choices=tuple(CHECKS),
        help="parity: a model's computation, layer by layer, against the reference; "
        "invariances: a training step of a configuration against the same step computed another way; "
        "resume: a run that was stopped and continued against one that was not; "
        "coordinates: whether activations keep their size at other widths, as muP promises",
    )
    return parser


def _parity_parser() -> Parser:
    defaults = ", ".join(f"{value:g} in {name}" for name, value in TOLERANCES.items())
    parser = Parser(
        "verify parity",
        "Computes a model's hidden states layer by layer in NumPy, straight from its files and apart\n"
        "from the model's own code, and holds the built model against them. The first layer that\n"
        "differs is named. Exit code 0: all within the tolerance; 1: one is not.",
        [
            "llama-exp verify parity llama3.2_1b",
            "llama-exp verify parity model.gguf --precision bfloat16 --tokens 32 --backend jax",
        ],
    )
    models.add_arguments(parser, adapters=False)
    parser.add_argument("--tokens", type=positive, default=DEFAULT_TOKENS, metavar="N", help="positions (default: 16)")
    help_text = f"largest relative difference allowed (default: {defaults})"
    parser.add_argument("--tolerance", type=_above_zero, metavar="X", help=help_text)
    parser.set_defaults(adapter=None, quantization=AS_STORED)
    return parser
