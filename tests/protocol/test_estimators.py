"""Estimators on data whose answer is known: by hand, against SciPy, and how often intervals hold the truth."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from questions import ROUNDS, ask, draw_arm, measure_coverage, observe, reason_of

from llama_exp.limits.estimators import ESTIMATORS as ARGUMENTS
from llama_exp.protocol.estimators import ESTIMATORS
from llama_exp.protocol.obtained import NotSeen

RATES = [1e-3 * 3.0**power for power in range(-3, 3)]
WIDTHS = (32, 64, 128, 256)
LEAST = scipy.stats.binom.ppf(0.001, ROUNDS, 0.95) / ROUNDS  # of intervals of 95 %, in all but one of 1000 series
finite = st.floats(-1e3, 1e3)


def test_every_estimator_has_its_arguments_and_its_source():
    assert set(ESTIMATORS) == set(ARGUMENTS)
    for estimator in ESTIMATORS.values():
        for word in ("Formula:", "Interval:", "Source:"):
            assert word in estimator.__doc__, (estimator, word)


# --- slopes


def power_law(rng, seeds, noise, exponent=-0.5):
    offsets = rng.normal(size=seeds)
    return [
        observe(seed, x=float(x), y=math.exp(offset + exponent * math.log(x) + noise * rng.normal()))
        for seed, offset in enumerate(offsets)
        for x in (4, 16, 64, 256)
    ]


def test_the_slope_of_one_seed_is_scipys():
    runs = power_law(np.random.default_rng(3), 1, 0.2)
    x, y = (np.log([run.values[name] for run in runs]) for name in "xy")
    expected = scipy.stats.linregress(x, y)
    reach = scipy.stats.t.ppf(0.975, 2) * expected.stderr
    found = ask("log_log_slope", runs)
    assert found.value == pytest.approx(expected.slope)
    assert (found.low, found.high) == pytest.approx((expected.slope - reach, expected.slope + reach))


def test_the_slope_of_several_seeds_is_that_of_centred_values():
    """With the same x for every seed, offsets of seeds drop out by centring (Frisch-Waugh-Lovell)."""
    runs = power_law(np.random.default_rng(4), 3, 0.2)
    x, y = (np.log([run.values[name] for run in runs]).reshape(3, 4) for name in "xy")
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    slope = (x * y).sum() / (x * x).sum()
    error = math.sqrt(((y - slope * x) ** 2).sum() / (12 - 3 - 1) / (x * x).sum())
    found = ask("log_log_slope", runs)
    assert found.value == pytest.approx(slope)
    assert found.high - found.value == pytest.approx(scipy.stats.t.ppf(0.975, 8) * error)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_intervals_of_slopes_hold_the_truth(seeds):
    share, _ = measure_coverage(lambda rng: ask("log_log_slope", power_law(rng, seeds, 0.3)), -0.5)
    assert share >= LEAST


def test_no_slope_without_three_values_or_logarithms():
    runs = power_law(np.random.default_rng(0), 3, 0.1)
    assert "2 values" in reason_of(lambda: ask("log_log_slope", [run for run in runs if run.values["x"] < 20]))
    assert "no logarithm" in reason_of(lambda: ask("log_log_slope", [*runs, observe(0, x=8.0, y=-1.0)]))
    assert "no logarithm" in reason_of(lambda: ask("log_log_slope", [*runs, observe(0, x=0.0, y=1.0)]))


# --- means and differences


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_differences_are_scipys(pairs):
    one, other = ([pair[side] for pair in pairs] for side in (0, 1))
    arms = {
        name: [observe(seed, y=value) for seed, value in enumerate(values)]
        for name, values in (("of", one), ("against", other))
    }
    found = ask("mean_difference", arms)
    differences = np.subtract(one, other)
    reach = scipy.stats.t.ppf(0.975, len(pairs) - 1) * differences.std(ddof=1) / math.sqrt(len(pairs))
    assert found.value == pytest.approx(differences.mean(), rel=1e-9, abs=1e-9)
    assert found.high - found.low == pytest.approx(2 * reach, rel=1e-6, abs=1e-9)


def test_pairs_of_one_seed_are_one_number():
    """Lengths share their seed's noise: three of them are no three seeds."""
    arms = {
        arm: [observe(seed, steps, y=shift + 0.1 * seed + steps) for seed in (0, 1) for steps in (300, 600, 1200)]
        for arm, shift in (("of", 1.0), ("against", 0.0))
    }
    found = ask("mean_difference", arms)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    assert "2 seeds" in found.method


def test_what_cannot_be_paired_is_said():
    of, against = [observe(seed, y=1.0) for seed in (0, 1)], [observe(0, y=2.0)]
    assert "seed 1" in reason_of(lambda: ask("mean_difference", {"of": of, "against": against}))
    assert "one seed" in reason_of(lambda: ask("mean_difference", {"of": of[:1], "against": against}))
    assert "inf" in reason_of(lambda: ask("mean_figure", [observe(0, y=1.0), observe(1, y=math.inf)]))


def test_the_mean_of_a_figure_is_scipys():
    values = [2.0, 2.5, 2.4]
    found = ask("mean_figure", [observe(seed, y=value) for seed, value in enumerate(values)])
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_steps_saved_are_counted():
    arms = {
        "of": [observe(seed, steps=steps) for seed in (0, 1) for steps in (1200.0, 60.0, 120.0, 240.0)],
        "against": [observe(seed, steps=steps) for seed in (0, 1) for steps in (300.0, 600.0, 1200.0)],
    }
    found = ask("steps_saved", arms)
    assert (found.value, found.low, found.high) == pytest.approx([1 - 1620 / 2100] * 3)
    arms["against"] = [observe(seed, steps=0.0) for seed in (0, 1)]
    assert "is 0" in reason_of(lambda: ask("steps_saved", arms))


# --- minima


def ask_ratio(rng, seeds=3, noise=0.005, neighbours=1, ratio=10.0, **more):
    arms = {
        "of": draw_arm(rng, 1.1e-3 * ratio, [rate * 10 for rate in RATES], seeds, noise, **more),
        "against": draw_arm(rng, 1.1e-3, RATES, seeds, noise, **more),
    }
    return ask("best_rate_ratio", arms, neighbours=neighbours)


def test_the_ratio_of_best_rates_without_noise_is_exact():
    for neighbours in (1, 2, 5):
        found = ask_ratio(np.random.default_rng(0), noise=1e-9, neighbours=neighbours, ratio=13.0)
        assert (found.value, found.low, found.high) == pytest.approx([13.0] * 3, rel=1e-4)


@pytest.mark.parametrize(("seeds", "neighbours"), [(2, 1), (2, 2), (3, 1)])
def test_intervals_of_best_rates_hold_the_truth(seeds, neighbours):
    """With little freedom they hold it more often than they say, and are wide."""
    share, _ = measure_coverage(lambda rng: ask_ratio(rng, seeds, 0.01, neighbours), 10.0)
    assert share >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("noise", [0.003, 0.01, 0.03])
def test_a_thousand_intervals_hold_the_truth(seeds, noise):
    """Of best rates, slopes and differences."""
    shares = {f"ratio, {neighbours} neighbours": ask_coverage(seeds, noise, neighbours) for neighbours in (1, 2)}
    shares["slope"] = measure_coverage(lambda rng: ask("log_log_slope", power_law(rng, seeds, noise)), -0.5, 1000)[0]
    if seeds > 1:
        arms = ("of", "against")
        shares["difference"] = measure_coverage(
            lambda rng: ask("mean_difference", {arm: draw_seeds(rng, seeds, noise) for arm in arms}), 0.0, 1000
        )[0]
    print(f"{seeds} seeds, noise {noise}: {shares}")
    assert min(share for share in shares.values() if share is not None) >= 0.93


def ask_coverage(seeds, noise, neighbours):
    if seeds * (2 * neighbours + 1) <= 2 + seeds:
        return None  # no freedom is left
    return measure_coverage(lambda rng: ask_ratio(rng, seeds, noise, neighbours), 10.0, 1000)[0]


def draw_seeds(rng, seeds, noise):
    return [observe(seed, y=noise * rng.normal()) for seed in range(seeds)]


def test_more_seeds_give_narrower_intervals():
    rng = np.random.default_rng(1)
    widths = [np.median([np.log(found.high / found.low) for found in (ask_ratio(rng, seeds) for _ in range(20))])
              for seeds in (2, 3, 6)]  # fmt: skip
    assert widths == sorted(widths, reverse=True)


def test_with_weak_curves_the_interval_is_open():
    """Noise as large as the curve: any rate may be the best one."""
    found = ask_ratio(np.random.default_rng(2), seeds=2, noise=0.2)
    assert found.low == 0.0 and found.high == math.inf


def test_near_the_minimum_a_loss_that_rises_faster_to_one_side_does_little():
    """The neighbours alone: the bias is far below the step of the grid, 3."""

    def shape(distance):
        return 0.05 * (math.exp(0.5 * distance) - 0.5 * distance - 1) * 8

    rng = np.random.default_rng(3)
    one = ask("best_rate_ratio", {"of": draw_arm(rng, 1.1e-3, RATES, 3, 1e-6, shape),
                                  "against": draw_arm(rng, 1.1e-3, RATES, 3, 1e-6)}, neighbours=1)  # fmt: skip
    assert 0.8 < one.value < 1.25


def test_a_minimum_at_the_edge_is_not_extrapolated():
    rng = np.random.default_rng(4)
    arms = {"of": draw_arm(rng, 1.0, RATES, 3, 0.001), "against": draw_arm(rng, 1.1e-3, RATES, 3, 0.001)}
    found = ask("best_rate_ratio", arms, neighbours=1)
    assert found.high == math.inf
    assert 0 < found.low <= found.value == pytest.approx(RATES[-1] / 1.1e-3, rel=0.1)
    assert any("of: the best rate is at the edge" in note for note in found.notes)
    turned = ask("best_rate_ratio", {"of": arms["against"], "against": arms["of"]}, neighbours=1)
    assert turned.low == 0.0 and math.isfinite(turned.high)


def test_a_diverged_rate_bounds_the_minimum():
    """Runs diverged at the highest rate: the best one is not above it."""
    rng = np.random.default_rng(5)
    of = [run if run.values["rate"] < RATES[-1] else observe(run.block[0], rate=RATES[-1], y=math.inf)
          for run in draw_arm(rng, 1.0, RATES, 3, 0.001)]  # fmt: skip
    found = ask("best_rate_ratio", {"of": of, "against": draw_arm(rng, 1.1e-3, RATES, 3, 0.001)}, neighbours=1)
    assert found.value == pytest.approx(RATES[-2] / 1.1e-3, rel=0.1)
    assert RATES[-1] / 1.1e-3 == pytest.approx(found.high, rel=0.1)


def test_one_diverged_seed_makes_its_rate_the_worst():
    rng = np.random.default_rng(6)
    runs = draw_arm(rng, RATES[4], RATES, 2, 0.001)
    is_hit = [run.values["rate"] == RATES[4] and run.block == (0,) for run in runs]
    of = [observe(0, rate=RATES[4], y=math.nan) if hit else run for run, hit in zip(runs, is_hit, strict=True)]
    found = ask("best_rate_ratio", {"of": of, "against": runs}, neighbours=1)
    assert found.value == pytest.approx(1 / 3, rel=0.05)  # the highest rate below it
    assert found.high == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([observe(0, rate=rate, y=math.inf) for rate in RATES], "diverged at every value"),
        ([observe(seed, rate=rate, y=3 + rate) for rate in RATES[:2] for seed in (0, 1)], "a parabola needs 3"),
        ([observe(0, rate=rate, y=abs(rate - RATES[2])) for rate in RATES], "more seeds"),
        ([observe(0, rate=0.0, y=1.0)], "no logarithm"),
    ],
)
def test_what_makes_no_parabola_is_said(runs, reason):
    good = draw_arm(np.random.default_rng(7), 1e-3, RATES, 2, 0.001)
    told = reason_of(lambda: ask("best_rate_ratio", {"of": runs, "against": good}, neighbours=1))
    assert told.startswith("of: ") or "no logarithm" in told
    assert reason in told


def ask_drift(rng, drift, seeds=3, noise=0.005):
    rates = [1e-2 * 2.0**power for power in range(-5, 6)]
    runs = [run for width in WIDTHS
            for run in draw_arm(rng, 1e-2 * (width / 90) ** drift, rates, seeds, noise, x=float(width))]  # fmt: skip
    return ask("best_rate_drift", runs, neighbours=1)


@pytest.mark.parametrize("drift", [0.0, -1.0])
def test_drifts_are_octaves_per_doubling(drift):
    exact = ask_drift(np.random.default_rng(8), drift, noise=1e-9)
    assert (exact.value, exact.low, exact.high) == pytest.approx([drift] * 3, abs=1e-3)
    share, closed = measure_coverage(lambda rng: ask_drift(rng, drift), drift, rounds=40)
    assert share >= LEAST and closed > 0.9


def test_answers_are_the_same_every_time():
    one, other = (ask_ratio(np.random.default_rng(9)) for _ in range(2))
    assert (one.low, one.value, one.high) == (other.low, other.value, other.high)


@given(st.lists(st.tuples(st.sampled_from(RATES), st.integers(0, 2), st.one_of(finite, st.just(math.inf)))))
@settings(max_examples=100, deadline=None)
def test_any_runs_give_an_ordered_interval_or_a_reason(runs):
    arm = [observe(seed, rate=rate, y=y) for rate, seed, y in runs] or [observe(0, rate=1.0, y=1.0)]
    try:
        found = ask("best_rate_ratio", {"of": arm, "against": arm[::-1]}, neighbours=1)
    except NotSeen as reason:
        assert str(reason)
    else:
        assert 0.0 <= found.low <= found.high
        assert math.isfinite(found.value)
