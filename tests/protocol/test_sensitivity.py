"""Sensitivity to the learning rate, on numbers whose answer is known."""

import math

import numpy as np
import pytest
import scipy.stats
from questions import ask, observe, reason_of

START = 6.0


def arm(losses_of_seed):
    """Runs of the rates 1e-3, 1e-2, 1e-1; a loss of infinity is a run that diverged."""
    return [
        observe(seed, rate=rate, y=loss, start=START if math.isfinite(loss) else math.nan)
        for seed, losses in enumerate(losses_of_seed)
        for rate, loss in zip((1e-3, 1e-2, 1e-1), losses, strict=True)
    ]


def test_the_difference_is_wortsmans_sensitivity_by_hand():
    """LR sensitivity of the paper: mean of min(loss, initial loss) over the rates, less the best loss."""
    steep = arm([(3.0, 2.0, math.inf), (3.2, 2.1, 9.0)])  # diverged, and worse than before training: both 6
    flat = arm([(2.5, 2.0, 3.0), (2.6, 2.1, 3.1)])
    found = ask("sensitivity_difference", {"of": steep, "against": flat})
    by_hand = [(3 + 2 + 6) / 3 - 2 - (2.5 / 3 + 2 / 3 + 1 - 2), (3.2 + 2.1 + 6) / 3 - 2.1 - (2.6 + 2.1 + 3.1) / 3 + 2.1]
    assert found.value == pytest.approx(np.mean(by_hand))
    reach = scipy.stats.t.ppf(0.975, 1) * scipy.stats.sem(by_hand)
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach))
    assert found.drawing.series[0].points[-1] == (1e-1, START)


def test_a_constant_added_to_all_losses_changes_nothing():
    one, other = [(3.0, 2.0, 4.0), (3.2, 2.1, 4.4)], [(2.5, 2.0, 3.0), (2.6, 2.1, 3.1)]
    shifted = [tuple(loss + 0.5 for loss in losses) for losses in one]
    plain = ask("sensitivity_difference", {"of": arm(one), "against": arm(other)})
    assert ask("sensitivity_difference", {"of": arm(shifted), "against": arm(other)}).value == pytest.approx(
        plain.value
    )


def test_what_cannot_be_compared_is_said():
    whole = arm([(3.0, 2.0, 4.0), (3.2, 2.1, 4.4)])
    reason = reason_of(lambda: ask("sensitivity_difference", {"of": whole[:-1], "against": whole}))
    assert "other learning rates (seed 1" in reason
    reason = reason_of(lambda: ask("sensitivity_difference", {"of": whole[:1], "against": whole[:1]}))
    assert "one learning rate" in reason
    lost = arm([(math.inf, math.inf, math.inf)])
    assert "before training" in reason_of(lambda: ask("sensitivity_difference", {"of": lost, "against": lost}))
