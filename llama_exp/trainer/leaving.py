"""Which weights a run leaves at its end: the last ones, or the best ones out of their checkpoint."""

from __future__ import annotations

import logging

from llama_exp.limits.trainer import Export
from llama_exp.trainer.measuring import Measuring, Stop
from llama_exp.trainer.saving import Saving
from llama_exp.trainer.selection import Best, Measured

_log = logging.getLogger(__name__)


def take_weights(
    export: Export, best: Best, step: int, measuring: Measuring, saving: Saving, stop: Stop
) -> Measured | None:
    """Gives the model the weights that the run leaves, and says what is known of them.

    Args:
        export: which ones.
        best: weights of the run.
        step: the last one, whose weights the model has.
        measuring: of the model.
        saving: has the checkpoints.
        stop: whether a signal arrived.

    Returns:
        Their figures; None where `stop()` turned true.

    Raises:
        InputError: the checkpoint of the best weights is gone or damaged.
    """
    last = measuring.measured if measuring.measured.step == step else Measured(step)
    if export is Export.last or best.is_of(step):
        return last
    if best.measured is None:
        _log.warning("%s was never a number: the last weights are exported, not the best ones", best.figure)
        return last
    _log.info("taking the weights of step %d: %s %.6g", best.measured.step, best.figure, best.value)
    saving.restore_weights(best.measured.step)
    return best.measured if measuring.complete(best.measured, stop) else None
