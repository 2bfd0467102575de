"""Rows as a pandas frame, where pandas is installed: it is no dependency of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def to_frame(rows: Sequence[Mapping[str, Any]], instead: str) -> Any:
    """A `pandas.DataFrame` with one line per row; a value that a row lacks is NaN.

    Args:
        rows: of scalars.
        instead: what has the same without pandas, for the message.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        action = f"pip install 'llama_exp[notebook]', or use {instead}"
        raise ImportError(f"a frame needs pandas, which is not installed: {action}") from error
    return pandas.DataFrame([dict(row) for row in rows])
