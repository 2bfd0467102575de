"""A loss or gradient that is not finite ends the run, with what a person needs to find out why."""

from __future__ import annotations

import logging
import math

import numpy as np

from llama_exp import recipe
from llama_exp.errors import NumericalError, Problem
from llama_exp.trainer.step import StepResult

_log = logging.getLogger(__name__)


def require_mere_overflow(result: StepResult, step: int, rows: np.ndarray, saved_step: int | None) -> None:
    """Ends the run at a step that is not finite, unless loss scaling can still deal with it.

    Args:
        result: of the step, which is not finite and was not applied.
        step: its number.
        rows: indices of the examples in it, (A * B,).
        saved_step: of the last checkpoint; None: there is none.

    Raises:
        NumericalError: it is more than an overflow of scaled gradients.
    """
    if math.isfinite(result.loss + (result.z_loss or 0.0)) and result.loss_scale > recipe.LOSS_SCALE["smallest"]:
        _log.info("step %d: overflow at loss scale %g, skipped", step, result.loss_scale)
        return
    found = (
        f"step {step}: loss {result.loss:g}, gradient norm {result.grad_norm:g}, learning rate "
        f"{result.learning_rate:g}, loss scale {result.loss_scale:g}, rows {_shortened(rows)}; "
        f"last good checkpoint: {_step_name(saved_step)}"
    )
    raise NumericalError(
        Problem(
            "loss or gradient is not finite; the step was not applied",
            "optimizer.learning_rate",
            found,
            "lower optimizer.learning_rate, lengthen schedule.warmup_steps or set optimizer.global_clipnorm",
        )
    )


def require_finite_validation(loss: float, step: int, saved_step: int | None) -> None:
    """Ends the run at a validation loss that is not finite; raises `NumericalError`."""
    if not math.isfinite(loss):
        raise NumericalError(
            Problem(
                "the validation loss is not finite",
                "optimizer.learning_rate",
                f"step {step}: {loss:g}; last good checkpoint: {_step_name(saved_step)}",
                "lower optimizer.learning_rate, or use a wider type than float16 (precision=float32)",
            )
        )


def _step_name(step: int | None) -> str:
    return "none" if step is None else f"step {step}"


def _shortened(rows: np.ndarray) -> str:
    shown = ", ".join(str(row) for row in rows[:8])
    return shown if len(rows) <= 8 else f"{shown}, ... ({len(rows)})"
