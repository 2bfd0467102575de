"""An update on the terminal: a row for each kind of matrix, and the rank of every matrix by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from llama_exp.inspection.update import MatrixUpdate, Update, mean

_SHORT = {
    "attention_output": "attn out",
    "feedforward_gate_dense": "gate",
    "feedforward_intermediate_dense": "up",
    "feedforward_output_dense": "down",
    "reverse_embeddings": "output",
}
_NOTE = (
    "rank: how many singular values have 90 % of the squared norm of the change (Biderman et al. 2024); mean of the n\n"
    "matrices. of: the most that their shape allows. stable: squared norm over the squared largest value. relative:\n"
    "norm of the change over that of the matrices before"
)


def show_update(update: Update, name: str, console: Console) -> None:
    """Prints it.

    Args:
        update: of a run.
        name: of the run.
        console: where to.
    """
    step = "" if update.step is None else f" at step {update.step}"
    console.print(f"{name}: what {update.method} training changed{step}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"started from {update.start}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    console.print(_table_of_kinds(update))
    console.print()
    console.print(_table_of_layers(update))
    console.print()
    console.print(_NOTE, style="dim", highlight=False, soft_wrap=True)


def _table_of_kinds(update: Update) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kind", no_wrap=True)
    for title in ("n", "shape", "rank", "of", "range", "stable", "norm", "relative"):
        table.add_column(title, justify="right", no_wrap=True)
    for kind in update.kinds:
        table.add_row(_SHORT.get(kind, kind), *_cells(update.of_kind(kind)))
    if len({matrix.kind for matrix in update.linear}) > 1:
        table.add_row("all layers", *_cells(update.linear), style="bold")
    return table


def _cells(matrices: Sequence[MatrixUpdate]) -> list[str]:
    shapes, full = {matrix.shape for matrix in matrices}, {matrix.full_rank for matrix in matrices}
    ranks = [matrix.rank_90 for matrix in matrices]
    norm = math.sqrt(math.fsum(matrix.norm**2 for matrix in matrices))
    bases = [matrix.base_norm for matrix in matrices]
    base = None if None in bases else math.sqrt(math.fsum(float(norm or 0.0) ** 2 for norm in bases))
    return [
        str(len(matrices)),
        "x".join(map(str, next(iter(shapes)))) if len(shapes) == 1 else "",
        f"{mean(ranks):.1f}",
        str(next(iter(full))) if len(full) == 1 else "",
        str(min(ranks)) if min(ranks) == max(ranks) else f"{min(ranks)}-{max(ranks)}",
        f"{mean(matrix.stable_rank for matrix in matrices):.1f}",
        f"{norm:.3g}",
        f"{norm / base:.2%}" if base else "-",
    ]


def _table_of_layers(update: Update) -> Table:
    kinds = list(dict.fromkeys(matrix.kind for matrix in update.linear))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rank in layer", justify="right")
    for kind in kinds:
        table.add_column(_SHORT.get(kind, kind), justify="right")
    table.add_column("norm", justify="right")
    for block in sorted({matrix.block for matrix in update.linear if matrix.block is not None}):
        own = {matrix.kind: matrix for matrix in update.linear if matrix.block == block}
        ranks = [str(own[kind].rank_90) if kind in own else "-" for kind in kinds]
        norm = math.sqrt(math.fsum(matrix.norm**2 for matrix in own.values()))
        table.add_row(str(block), *ranks, f"{norm:.3g}")
    return table
