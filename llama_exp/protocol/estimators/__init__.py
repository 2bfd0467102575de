"""Estimators: functions of prepared runs, by the name that a claim gives.

    estimator(Question) -> Obtained, or raises NotSeen with the reason

What each takes stands in `llama_exp.limits.estimators`, by which a claim is checked before anything runs. Each
docstring states formula, interval and source. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable

from llama_exp.protocol.estimators.best_rate_drift import best_rate_drift
from llama_exp.protocol.estimators.best_rate_ratio import best_rate_ratio
from llama_exp.protocol.estimators.isoflop import isoflop_exponent, isoflop_prediction
from llama_exp.protocol.estimators.log_log_slope import log_log_slope
from llama_exp.protocol.estimators.mean_difference import mean_difference
from llama_exp.protocol.estimators.mean_figure import mean_figure
from llama_exp.protocol.estimators.sensitivity_difference import sensitivity_difference
from llama_exp.protocol.estimators.steps_saved import steps_saved
from llama_exp.protocol.estimators.update_rank_ratio import update_rank_ratio
from llama_exp.protocol.obtained import Obtained, Question

Estimator = Callable[[Question], Obtained]

ESTIMATORS: dict[str, Estimator] = {
    "best_rate_drift": best_rate_drift,
    "best_rate_ratio": best_rate_ratio,
    "isoflop_exponent": isoflop_exponent,
    "isoflop_prediction": isoflop_prediction,
    "log_log_slope": log_log_slope,
    "mean_difference": mean_difference,
    "mean_figure": mean_figure,
    "sensitivity_difference": sensitivity_difference,
    "steps_saved": steps_saved,
    "update_rank_ratio": update_rank_ratio,
}
