"""What few numbers can show: intervals of means, exact tests of paired differences, and their limits.

    estimate(values)              mean with Student's t interval
    find_sign_flip_p(differences) exact p-value of paired differences
    hold_family(p_values)         Holm's correction
    count_share(count, n)         a frequency with its exact interval
    bootstrap_mean(values)        BCa interval of a mean
    find_t_quantile(confidence, degrees)  of Student's distribution

Own formulas, each tested against SciPy, which is a large package for five functions. Imports no framework.
"""

from llama_exp.results.statistics.beta import find_t_quantile
from llama_exp.results.statistics.bootstrap import LEAST_FOR_BOOTSTRAP, RESAMPLES, bootstrap_mean
from llama_exp.results.statistics.estimate import Estimate, Share, count_share, estimate
from llama_exp.results.statistics.paired import (
    FLIPS,
    MOST_EXACT,
    find_sign_flip_p,
    find_smallest_p,
    hold_family,
)

__all__ = [
    "FLIPS",
    "LEAST_FOR_BOOTSTRAP",
    "MOST_EXACT",
    "RESAMPLES",
    "Estimate",
    "Share",
    "bootstrap_mean",
    "count_share",
    "estimate",
    "find_sign_flip_p",
    "find_smallest_p",
    "find_t_quantile",
    "hold_family",
]
