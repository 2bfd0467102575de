"""`llama-exp verify parity`: the built model against a NumPy forward pass from the same files, layer by layer.

The difference of a layer is the root mean square of (model - reference) divided by that of the reference, over all
positions. The first layer above the tolerance is named: what comes after it inherits its error.

Exit code 0: every layer within the tolerance. 1: one is not, or is not finite.
"""

from __future__ import annotations

import argparse
import contextlib
import math
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from llama_exp import reference
from llama_exp.architecture import AS_STORED
from llama_exp.commands import merge, models
from llama_exp.commands.export import DTYPES
from llama_exp.commands.parser import Parser, positive
from llama_exp.console import logs
from llama_exp.formats import open_adapter
from llama_exp.formats.quantized import dequantize_checkpoint

# Relative, by what the products are computed in; a wrong head, mask, order or epsilon is 0.01 and more.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
QUANTIZED_TOLERANCE = 0.2  # where the model rounds activations to integers, the reference does not
SEED = 0
DEFAULT_TOKENS = 16


@dataclass(frozen=True)
class Difference:
    """How far a layer's output is from the reference.

    Attributes:
        layer: its path, or `logits`.
        largest: the largest absolute difference.
        relative: root mean square of the difference over that of the reference; NaN where the model's is not finite.
    """

    layer: str
    largest: float
    relative: float


def main(arguments: list[str]) -> int:
    """Verifies as the command line says; returns the exit code."""
    options = _parser().parse_args(arguments)
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
        differences = compare(model, checkpoint, token_ids_BS)
    tolerance = options.tolerance or _tolerance(model.backbone)
    wrong = first_deviation(differences, tolerance)
    _show(differences, wrong, tolerance)
    return 0 if wrong is None else 1


def compare(model, checkpoint, token_ids_BS: np.ndarray) -> list[Difference]:
    """The difference of every layer, in order, and of the logits.

    Args:
        model: a `LlamaCausalLM`.
        checkpoint: open, with floating-point weights: what the model should compute.
        token_ids_BS: integers.
    """
    from llama_exp.models.layer_outputs import layer_outputs

    found = layer_outputs(model, token_ids_BS)
    expected = reference.layer_outputs(checkpoint, token_ids_BS, DTYPES[model.backbone.variable_dtype])
    console = Console(stderr=True)
    steps = track(
        expected, "reference", total=len(found), console=console, disable=not console.is_terminal, transient=True
    )
    return [_difference(layer, found[layer], output) for layer, output in steps]


def first_deviation(differences: list[Difference], tolerance: float) -> Difference | None:
    """The first layer beyond the tolerance; None: there is none."""
    return next((one for one in differences if not one.relative <= tolerance), None)  # NaN is beyond, too


def _difference(layer: str, found: np.ndarray, expected: np.ndarray) -> Difference:
    error = found.astype(np.float64) - expected
    size = math.sqrt(float(np.mean(np.square(expected))))
    relative = math.sqrt(float(np.mean(np.square(error)))) / size if size else float(np.abs(error).max() > 0)
    return Difference(layer, float(np.abs(error).max()), relative)


def _tolerance(backbone) -> float:
    stored = backbone.quantization
    if stored is not None and stored.quantize_activations:
        return QUANTIZED_TOLERANCE
    return TOLERANCES[backbone.compute_dtype]


def _show(differences: list[Difference], wrong: Difference | None, tolerance: float) -> None:
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
    defaults = ", ".join(f"{value:g} in {name}" for name, value in TOLERANCES.items())
    parser = Parser(
        "verify",
        "Computes a model's hidden states layer by layer in NumPy, straight from its files and apart\n"
        "from the model's own code, and holds the built model against them. The first layer that\n"
        "differs is named. Exit code 0: all within the tolerance; 1: one is not.",
        [
            "llama-exp verify parity llama3.2_1b",
            "llama-exp verify parity model.gguf --precision bfloat16 --tokens 32 --backend jax",
        ],
    )
    parser.add_argument("check", choices=("parity",), help="the model's computation against the reference")
    models.add_arguments(parser, adapters=False)
    parser.add_argument("--tokens", type=positive, default=DEFAULT_TOKENS, metavar="N", help="positions (default: 16)")
    help_text = f"largest relative difference allowed (default: {defaults})"
    parser.add_argument("--tolerance", type=_above_zero, metavar="X", help=help_text)
    parser.set_defaults(adapter=None, quantization=AS_STORED)
    return parser
