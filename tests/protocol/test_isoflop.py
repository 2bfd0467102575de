"""The exponent of compute-optimal sizes and its prediction, on losses whose best sizes are known."""

import math

import numpy as np
import pytest

from llama_exp.protocol.estimators import ESTIMATORS
from llama_exp.protocol.obtained import ALL, NotSeen, Observation, Question

BUDGETS = (1e12, 4e12, 1.6e13, 6.4e13)
STEPS = (-1.4, -0.7, 0.0, 0.7, 1.4)  # of log size around the best
NAMES = {"budget": "trainer.budget_flops", "compute": "trainer.budget_flops", "size": "parameters.all", "y": "loss"}


def isoflop(rng, exponent, noise=0.0, seeds=(0,), budgets=BUDGETS[:3], shift=0.0, of_compute=0.0):
    """Runs whose loss is a parabola in log size around 100 000 x (budget / 1e12)^exponent.

    shift: of the sizes that are run, in logarithms. of_compute: power of the size that compute has besides the budget.
    """
    runs = []
    for number, budget in enumerate(budgets):
        best = math.log(1e5) + exponent * math.log(budget / 1e12)
        for seed in seeds:
            for at in STEPS:
                size = math.exp(best + at + shift)
                loss = 3.0 - 0.2 * number + 0.1 * seed + 0.05 * (at + shift) ** 2 + noise * rng.standard_normal()
                values = {"budget": budget, "compute": budget * size**of_compute, "size": size, "y": loss}
                runs.append(Observation(len(runs), (seed,), values))
    return runs


def ask(name, runs, neighbours=2):
    return ESTIMATORS[name](Question({ALL: tuple(runs)}, NAMES, {"neighbours": neighbours}, 0.95))


@pytest.mark.parametrize("exponent", [0.5, 0.73])
def test_without_noise_the_exponent_is_the_true_one(exponent):
    found = ask("isoflop_exponent", isoflop(np.random.default_rng(0), exponent, seeds=(0, 1), shift=0.3))
    assert found.value == pytest.approx(exponent, abs=1e-6)
    assert found.low <= found.value <= found.high and found.high - found.low < 1e-3
    assert [series.marked for series in found.drawing.series] == pytest.approx(
        [1e5 * 4 ** (k * exponent) for k in range(3)]
    )


def test_chinchillas_law_gives_chinchillas_exponent():
    """L = E + A / N^a + B / D^b with a = b, D = C / 6 N: the best N grows as C^0.5, and the loss is even in log N."""
    runs = []
    for budget in BUDGETS[:3]:
        for factor in (0.25, 0.5, 1.0, 2.0, 4.0):
            size = factor * math.sqrt(budget / 6) * 0.3
            loss = 1.7 + 400.0 * size**-0.34 + 400.0 * 0.3**-0.68 * (budget / 6 / size) ** -0.34
            runs.append(Observation(len(runs), (0,), {"budget": budget, "compute": budget, "size": size, "y": loss}))
    assert ask("isoflop_exponent", runs).value == pytest.approx(0.5, abs=1e-3)


def test_compute_that_depends_on_the_size_changes_the_exponent():
    """With compute = C N^p and N = C^a at the best: N = compute^(a / (1 + p a))."""
    runs = isoflop(np.random.default_rng(0), 0.6, of_compute=-0.3)
    assert ask("isoflop_exponent", runs).value == pytest.approx(0.6 / (1 - 0.3 * 0.6), abs=1e-6)


def test_the_prediction_is_what_the_largest_budget_is_compared_with():
    runs = isoflop(np.random.default_rng(0), 0.5, budgets=BUDGETS)
    found = ask("isoflop_prediction", runs)
    assert found.value == pytest.approx(1.0, abs=1e-6)
    assert found.notes[0] == "At the largest budget 800,000 was predicted, and 800,000 found."
    moved = [
        Observation(
            one.run, one.block, {**one.values, "size": one.values["size"] * (1 + (one.values["budget"] > 5e13))}
        )
        for one in runs
    ]
    assert ask("isoflop_prediction", moved).value == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "budgets", "truth"), [("isoflop_exponent", BUDGETS[:3], 0.5), ("isoflop_prediction", BUDGETS, 1.0)]
)
def test_the_interval_holds_the_truth_as_often_as_it_says(name, budgets, truth):
    rng, trials = np.random.default_rng(5), 80
    found = [ask(name, isoflop(rng, 0.5, noise=0.01, seeds=(0, 1), budgets=budgets, shift=0.2)) for _ in range(trials)]
    held = sum(one.low <= truth <= one.high for one in found)
    assert held >= 0.90 * trials  # 95 % less two standard errors of 80 trials
    assert np.median([one.high - one.low for one in found]) < truth / 2  # it is not wide because it knows nothing


def test_a_best_size_at_the_edge_leaves_the_interval_open():
    """All sizes lie below the best one of the largest budget: the exponent may be any larger one."""
    rng = np.random.default_rng(0)
    runs = (
        isoflop(rng, 0.5, noise=1e-4, seeds=(0, 1))[:20] + isoflop(rng, 0.5, noise=1e-4, seeds=(0, 1), shift=-2.0)[20:]
    )
    found = ask("isoflop_exponent", runs)
    assert found.high == math.inf and 0.0 < found.low < 0.5
    assert "at the edge" in found.notes[-1]


@pytest.mark.parametrize("of_compute", [0.0, -0.3])
def test_sizes_that_are_all_too_large_leave_everything_open(of_compute):
    """What a quick variant does: the smallest size is the best at every budget, and the exponent may be any."""
    runs = [
        Observation(number, (0,), {"budget": budget, "compute": budget * size**of_compute, "size": size, "y": loss})
        for number, (budget, size, loss) in enumerate(
            (budget, 1e4 * 2.0**n, 3.0 + 0.1 * n + 0.001 * (n % 3)) for budget in BUDGETS for n in range(4)
        )
    ]
    found = ask("isoflop_exponent", runs, neighbours=4)
    assert (found.value, found.low, found.high) == (0.0, -math.inf, math.inf)
    ratio = ask("isoflop_prediction", runs, neighbours=4)
    assert (ratio.value, ratio.low, ratio.high) == (pytest.approx(1.0), 0.0, math.inf)


def test_what_cannot_be_answered_says_why():
    runs = isoflop(np.random.default_rng(0), 0.5, budgets=BUDGETS[:2])
    with pytest.raises(NotSeen, match=r"trainer.budget_flops has 2 values"):
        ask("isoflop_exponent", runs)
    with pytest.raises(NotSeen, match="has 3 values: one is predicted from 3 others"):
        ask("isoflop_prediction", isoflop(np.random.default_rng(0), 0.5))
    three = [one for one in isoflop(np.random.default_rng(0), 0.5) if one.values["size"] > 9e4]
    with pytest.raises(NotSeen, match=r"trainer.budget_flops=1e\+12: 3 runs at 3 values leave no freedom"):
        ask("isoflop_exponent", three)
