"""Solved items in front of each prompt (few-shot)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from llama_exp.errors import InputError
from llama_exp.evaluation.records import read_records

BETWEEN = "\n\n"  # solved items and the prompt


def read_solved(
    file: str | None, number: int, solve: Callable[[Mapping[str, Any], str], str], where: str = "num_examples"
) -> str:
    """The first `number` items of a file, solved, as the text that stands in front of a prompt; empty for none.

    Args:
        file: JSON lines; None: there are none.
        number: of items.
        solve: (record, file:line) -> prompt and right answer.
        where: the key that states the number, for messages.

    Raises:
        InputError: an item is wrong, or the file has too few.
    """
    if file is None or number == 0:
        return ""
    records = list(itertools.islice(read_records(file), number))
    if len(records) < number:
        action = f"give at least {number} items, or set {where}={len(records)}"
        raise InputError.about(file, "the file has too few solved items", f"{len(records)}, {where}={number}", action)
    return "".join(solve(record, place) + BETWEEN for place, record in records)
