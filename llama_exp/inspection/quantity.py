"""The rank of a run's update as one number, for claims."""

from __future__ import annotations

import logging
import math

from llama_exp.errors import InputError, StorageError
from llama_exp.inspection.measure import measure_update
from llama_exp.inspection.record import write_record
from llama_exp.inspection.update import mean
from llama_exp.results import RunResult

_log = logging.getLogger(__name__)


def find_update_rank(run: RunResult) -> float | None:
    """The mean rank of what training changed, over the linear layers that it changed; None: the run cannot tell.

    The record of it stays in the run's folder, where that can be written, so that the next call is quick.
    """
    try:
        measured = measure_update(run)
    except InputError as error:
        _log.warning("%s", error)
        return None
    try:
        write_record(measured.update, None, measured.key, run.folder)
    except StorageError as error:
        _log.info("the rank of the update is not kept: %s", error)
    rank = mean(matrix.rank_90 for matrix in measured.update.linear)
    return None if math.isnan(rank) else rank
