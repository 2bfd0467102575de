"""Intervals and tests against SciPy, which the package itself does not use."""

import itertools

import numpy as np
import pytest
import scipy.stats

from llama_exp.results.statistics import (
    LEAST_FOR_BOOTSTRAP,
    MOST_EXACT,
    RESAMPLES,
    bootstrap_mean,
    count_share,
    estimate,
    find_sign_flip_p,
    find_smallest_p,
    hold_family,
)
from llama_exp.results.statistics.beta import find_t_quantile, incomplete_beta


def draw(n, shift=0.0, seed=7):
    return (np.random.default_rng(seed).normal(size=n) + shift).tolist()


@pytest.mark.parametrize("degrees", [1, 2, 3, 7, 23, 100, 9_999])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_quantiles_of_t(degrees, confidence):
    expected = scipy.stats.t.ppf((1 + confidence) / 2, degrees)
    assert find_t_quantile(confidence, degrees) == pytest.approx(expected, rel=1e-10)


def test_the_incomplete_beta_function():
    for x, a, b in itertools.product((0.0, 1e-9, 0.3, 0.5, 0.97, 1.0), (0.5, 1.0, 20.0), (0.5, 3.0, 200.0)):
        assert incomplete_beta(x, a, b) == pytest.approx(scipy.special.betainc(a, b, x), rel=1e-11, abs=1e-300)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 30])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_of_a_mean(n, confidence):
    values = draw(n)
    found = estimate(values, confidence)
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-10)
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert (found.n, found.mean) == (n, pytest.approx(np.mean(values)))


@pytest.mark.parametrize("n", [3, 4, 9])
def test_the_interval_of_a_paired_difference(n):
    one, other = draw(n, 0.3, seed=1), draw(n, seed=2)
    expected = scipy.stats.ttest_rel(one, other).confidence_interval(0.95)
    found = estimate([a - b for a, b in zip(one, other, strict=True)], 0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-10)


def test_one_value_has_no_interval():
    assert estimate([2.5], 0.95) == type(estimate([2.5], 0.95))(1, 2.5, None, None, None)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 12])
@pytest.mark.parametrize("shift", [0.0, 0.5, 5.0])
def test_flipping_all_signs(n, shift):
    one, other = draw(n, shift, seed=3), draw(n, seed=4)

    def difference(a, b, axis):
        return np.mean(a - b, axis=axis)

    p, is_exact = find_sign_flip_p([a - b for a, b in zip(one, other, strict=True)])
    assert is_exact
    if n == 1:  # SciPy asks for two
        assert p == 1.0
        return
    expected = scipy.stats.permutation_test((one, other), difference, permutation_type="samples", n_resamples=np.inf)
    assert p == pytest.approx(expected.pvalue)


def test_equal_runs_have_no_difference():
    assert find_sign_flip_p([0.0, 0.0, 0.0]) == (1.0, True)
    assert find_sign_flip_p([0.1, -0.1]) == (1.0, True)


def test_the_smallest_p_is_that_of_one_sign():
    for n in (1, 3, 5, 6, MOST_EXACT):
        assert find_sign_flip_p([0.1 * k for k in range(1, n + 1)])[0] == find_smallest_p(n)
    assert [find_smallest_p(n) for n in (3, 5, 6)] == [0.25, 0.0625, 0.03125]


def test_many_pairs_are_sampled_and_agree_with_the_signed_sums():
    differences = draw(MOST_EXACT + 5, 0.35, seed=5)
    p, is_exact = find_sign_flip_p(differences)
    assert not is_exact
    # For this many pairs the flipped sums are close to normal with the variance sum(d^2).
    ratio = abs(sum(differences)) / np.sqrt(np.square(differences).sum())
    assert p == pytest.approx(2 * scipy.stats.norm.sf(ratio), rel=0.15)
    assert find_sign_flip_p(differences)[0] == p
    assert find_sign_flip_p([1.0] * 200)[0] == find_smallest_p(200)


def test_holm():
    p_values = [0.01, 0.04, 0.03, 0.005]
    assert hold_family(p_values) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # by hand
    assert hold_family([0.5, 0.9]) == [1.0, 1.0]
    assert hold_family([]) == []


@pytest.mark.parametrize("n", [1, 3, 4, 20, 500])
def test_shares(n):
    for count in {0, 1, n // 2, n}:
        found = count_share(count, n, 0.95)
        expected = scipy.stats.binomtest(count, n).proportion_ci(0.95, method="exact")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-11)


@pytest.mark.parametrize("n", [8, 20])
def test_the_bootstrap(n):
    values = np.exp(draw(n, seed=6)).tolist()  # skewed, so that the correction matters
    expected = scipy.stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=RESAMPLES, rng=np.random.default_rng(0)
    ).confidence_interval
    assert bootstrap_mean(values, 0.95) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_few_or_equal_values_are_no_bootstrap():
    assert bootstrap_mean(draw(LEAST_FOR_BOOTSTRAP - 1), 0.95) is None
    assert bootstrap_mean([2.0] * 8, 0.95) == (2.0, 2.0)
