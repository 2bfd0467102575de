"""What all pictures share: colours, axes, and how they are written. By Matplotlib, without a screen."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from llama_exp.files.writing import replaced, storage_errors

# Okabe & Ito (2008): told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#999999"
_DOTS_PER_INCH = 150


def new_figure(width: float, height: float) -> Any:
    """An empty figure of a size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # heavy: only those who draw pay for it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def clear_axes(axes: Any) -> None:
    """Takes away what is no data: a frame on two sides only, a faint grid."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def literal(text: str) -> str:
    """Text that Matplotlib shows as it is, and does not take for a formula."""
    return text.replace("$", r"\$")


def save_picture(figure: Any, path: Path) -> None:
    """Replaces a PNG file atomically; raises `StorageError`."""
    with storage_errors(path), replaced(path) as draft, warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, which the reader sees.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(draft, format="png")
