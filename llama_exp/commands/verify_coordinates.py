"""`llama-exp verify coordinates`: whether activations keep their size at other widths of a configuration's model."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llama_exp.commands.telling import told
from llama_exp.console import logs
from llama_exp.errors import ConfigError, Problem
from llama_exp.verification import coordinates
from llama_exp.verification.coordinates import STEPS, TOLERANCE, WIDTHS, Slope
from llama_exp.verification.subject import compose

HELP = f"""usage: llama-exp verify coordinates [{WIDTHS} N,...] [<part>=<choice> | <key>=<value> ...]

Trains models of several widths for {max(STEPS)} steps on one batch, with the optimizer, the learning rate and
the parametrization of your command line, and shows how hidden states, attention scores and logits
change: the exponent of the width. Under model.parametrization=mup all are near 0, so that a wide
model can have the learning rate of a narrow one. No data is needed. The models have random weights,
at most {coordinates.MOST_LAYERS} blocks and {coordinates.MOST_TOKENS} tokens.
Exit code 0: all are within {TOLERANCE:g}; 1: one is not.

options:
  {WIDTHS} N,...  values of model.hidden_dim; default: four, each twice the one before

examples:
  llama-exp verify coordinates model.parametrization=mup model.base_hidden_dim=256
  llama-exp verify coordinates {WIDTHS} 128,256,512,1024 runtime.backend=jax"""


def main(arguments: list[str]) -> int:
    """Checks as the command line says; returns the exit code.

    Args:
        arguments: behind `verify coordinates`.
    """
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    widths, overrides = _take_widths(arguments)
    config = compose(overrides, "llama-exp verify coordinates")
    logs.attach_console()
    with told() as tell:
        slopes = coordinates.check(config, widths, tell)
    _show(slopes)
    return 0 if all(slope.is_flat for slope in slopes) else 1


def _take_widths(arguments: Sequence[str]) -> tuple[list[int] | None, list[str]]:
    """The widths that were asked for (None: nobody did), and the other arguments."""
    rest, text, expects = [], None, False
    for argument in arguments:
        key, is_joined, value = argument.partition("=")
        if expects or (key == WIDTHS and is_joined):
            text, expects = (argument if expects else value), False
        elif argument == WIDTHS:
            expects = True
        else:
            rest.append(argument)
    if text is None and not expects:
        return None, rest
    words = [word.strip() for word in (text or "").split(",")]
    if not all(word.isascii() and word.isdigit() and 0 < len(word) < 8 and int(word) for word in words):
        action = f"give whole numbers above 0 with commas between: {WIDTHS} 128,256,512"
        raise ConfigError(Problem("are no widths", WIDTHS, text or "nothing behind it", action))
    return sorted({int(word) for word in words}), rest


def _show(slopes: Sequence[Slope]) -> None:
    console, table = Console(), Table(box=None, pad_edge=False)
    table.add_column("change of")
    for step in STEPS:
        table.add_column(f"after {step} step{'s' * (step > 1)}", justify="right")
    for layer in dict.fromkeys(slope.layer for slope in slopes):
        row = [slope for slope in slopes if slope.layer == layer]
        cells = [Text(f"width^{slope.change:+.2f}", "" if slope.is_flat else "bold red") for slope in row]
        table.add_row(layer, *cells)
    console.print(table)
    wrong = [slope for slope in slopes if not slope.is_flat]
    if not wrong:
        console.print(f"flat: no change follows the width, within an exponent of {TOLERANCE:g}", highlight=False)
        return
    worst = max(wrong, key=lambda slope: abs(slope.change))
    text = (
        f"not flat: {len(wrong)} of {len(slopes)} changes follow the width by more than {TOLERANCE:g}, most of all "
        f"{worst.layer} after {worst.step} steps: a learning rate that fits one width does not fit another"
    )
    console.print(text, style="bold red", highlight=False, soft_wrap=True)
