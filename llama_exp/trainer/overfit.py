"""Whether a model learns a batch that it sees again and again: the quickest look at whether it can learn at all."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


def judge(loss: float, below: float, step: int, is_last: bool) -> str | None:
    """Why the run may end now; None: the model has not learned the batch. Warns where this was the last step.

    Args:
        loss: of the batch, at this step.
        below: what counts as learned.
        step: finished steps.
        is_last: whether there are no more.
    """
    if loss < below:
        return f"the model can learn: its loss on one batch is {loss:.4g}, below {below:g}"
    if is_last:
        text = "the model did not learn one batch: its loss is %.4g after %d steps, wanted is less than %g"
        _log.warning(text, loss, step, below)
    return None
