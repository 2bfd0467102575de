"""What the end of a run says of itself: its figures in the summary, and the one that a sweep compares."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.config.budget import Budget
from llama_exp.console.progress import format_bytes
from llama_exp.limits.figures import find_number, split_figure
from llama_exp.limits.trainer import KeepOptimizer
from llama_exp.trainer.counters import Result

_log = logging.getLogger(__name__)


def describe(result: Result) -> dict[str, Any]:
    """The entries of `summary.json` that the trainer decides.

    Returns:
        `validation` (loss, perplexity) and `evaluation` of the weights that the run leaves, `exported_step` of these,
        `stopped_early` (why) and `best` (figure, step, value) where there is such a thing.
    """
    entries: dict[str, Any] = {"exported_step": result.exported_step, **result.figures}
    if result.stopped is not None:
        entries["stopped_early"] = result.stopped
    if result.best is not None:
        entries["best"] = dict(result.best)
    return entries


def list_spending(budget: Budget | None, steps: int) -> dict[str, Any]:
    """The entry `budget` of `summary.json` after this many optimizer steps; none where the run has no budget."""
    return {} if budget is None else {"budget": budget.spent(steps)}


def free(keep_optimizer: KeepOptimizer, checkpoints: Path) -> None:
    """Removes from a finished run's checkpoints what nobody asked to keep."""
    if keep_optimizer is KeepOptimizer.until_finished:
        from llama_exp.trainer.stripping import free_optimizer

        freed = free_optimizer(checkpoints)
        _log.info("the optimizer's state is removed: %s free; the run cannot be made longer", format_bytes(freed))


def find_objective(figure: str, summary: Mapping[str, Any]) -> float | None:
    """The figure of a summary, with a warning where it has none of this name."""
    path, _ = split_figure(figure)
    value = find_number(summary, path)
    if value is None:
        _log.warning("summary.json has no %s, which objective_metric names: a sweep cannot compare this run", path)
    return value
