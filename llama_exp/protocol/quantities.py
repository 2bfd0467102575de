"""Numbers of a run by name: keys of its config, figures, statistics of its rows, and some that are computed.

`llama_exp.limits.estimators` says how they are called. A new one that no file states is a line in `_COMPUTED`, and in
`COMPUTED` there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llama_exp.errors import ExitCode
from llama_exp.inspection.quantity import find_update_rank
from llama_exp.limits import is_number
from llama_exp.limits.estimators import split_statistic
from llama_exp.results import RunResult, find_figure
from llama_exp.results.spent import count_flops, count_model, count_tokens, find_branched

_OF_EVALUATION = "evaluation."
_STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda values: float(np.mean(values)),
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
    "max": lambda values: float(np.max(values)),
    "min": lambda values: float(np.min(values)),
}


def find_quantity(run: RunResult, name: str) -> float | None:
    """A number of a run; NaN and infinities are numbers. None: it has none of this name.

    Raises:
        InputError: a line of metrics.jsonl is damaged.
    """
    if name in _COMPUTED:
        number = _COMPUTED[name](run)
        return None if number is None else float(number)
    if (parts := split_statistic(name)) is not None:
        return _find_statistic(run, *parts)
    if name in run.values:
        value = run.values[name]
        return float(value) if is_number(value) and abs(value) <= sys.float_info.max else None
    return find_figure(run, name)


def has_diverged(run: RunResult) -> bool:
    """Whether the run ended because its loss or a gradient was not finite."""
    return run.summary.get("exit_code") == ExitCode.NUMERICAL


def _find_statistic(run: RunResult, statistic: str, key: str) -> float | None:
    if key.startswith(_OF_EVALUATION):
        name, _, figure = key.removeprefix(_OF_EVALUATION).rpartition(".")
        own = [row for row in run.own_evaluations if row["name"] == name and row["step"] is not None]
        rows = sorted(own, key=lambda row: row["step"])
        values = [row.get(figure) for row in rows]
    else:
        values = [row.get(key) for row in run.rows if row.get("split") == "train"]
    numbers = [float(value) for value in values if isinstance(value, int | float) and is_number(value)]
    return _STATISTICS[statistic](numbers) if numbers else None


def _count_kaplans_flops(run: RunResult) -> float | None:
    """The compute of Kaplan et al. 2020 (arXiv:2001.08361), section 2.1: without embeddings and attention's scores."""
    parameters, tokens = count_model(run.config, with_embeddings=False), count_tokens(run)
    return None if parameters is None or tokens is None else 6.0 * parameters * tokens


def _count_trained_steps(run: RunResult) -> float | None:
    steps = find_figure(run, "steps")
    return None if steps is None else steps - find_branched(run, "step")


_COMPUTED: dict[str, Callable[[RunResult], Any]] = {
    "parameters.all": lambda run: count_model(run.config, with_embeddings=True),
    "parameters.non_embedding": lambda run: count_model(run.config, with_embeddings=False),
    "update.rank": find_update_rank,
    "flops": count_flops,
    "flops.non_embedding": _count_kaplans_flops,
    "steps.trained": _count_trained_steps,
}
