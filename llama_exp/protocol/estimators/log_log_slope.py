"""See `log_log_slope`."""

from __future__ import annotations

import math

import numpy as np

from llama_exp.protocol.arms import take_logarithm
from llama_exp.protocol.obtained import ALL, Drawing, NotSeen, Obtained, Question, Series
from llama_exp.protocol.regression import fit_blocks
from llama_exp.results.statistics import find_t_quantile

_LEAST = 3  # values of x, so that the runs may contradict the line


def log_log_slope(question: Question) -> Obtained:
    """The exponent of a power law.

    Formula: the least-squares slope of log y over log x, with an offset of its own for each seed.
    Interval: Student's t of the regression, N - seeds - 1 degrees of freedom. The noise is what is left beside the
    line, so that points that follow no power law widen it. It holds for independent noise of equal variance in log y.
    Source: ordinary least squares; checked against SciPy's linregress.
    """
    arm = question.arms[ALL]
    x = np.array([take_logarithm("x", question.names["x"])(one) for one in arm])
    y = np.array([take_logarithm("y", question.names["y"])(one) for one in arm])
    if len(set(x.tolist())) < _LEAST:
        raise NotSeen(f"{question.names['x']} has {len(set(x.tolist()))} values, and a slope is judged by {_LEAST}")
    middle = float(x.mean())
    fit = fit_blocks((x - middle)[:, None], y, [one.block for one in arm])
    if fit is None or fit.degrees < 1:
        raise NotSeen(f"{len(arm)} runs leave no freedom to know the noise")
    slope = float(fit.coefficients[0])
    reach = find_t_quantile(question.confidence, fit.degrees) * math.sqrt(fit.variance * float(fit.scale[0, 0]))
    ends = (float(x.min()), float(x.max()))
    line = tuple((math.exp(at), math.exp(fit.offset + slope * (at - middle))) for at in ends)
    points = tuple((one.values["x"], one.values["y"]) for one in arm)
    drawing = Drawing(question.names["x"], question.names["y"], (Series("", points, line),), True, True)
    method = f"Student t of the regression, {fit.degrees} degrees of freedom"
    return Obtained(slope, slope - reach, slope + reach, "", method, drawing)
