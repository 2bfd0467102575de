"""Singular values of dense changes and of products, beside NumPy's and SciPy's own decompositions."""

import numpy as np
import pytest
import scipy.linalg

from llama_exp.inspection.spectrum import count_rank, find_stable_rank, find_values, find_values_of_product


@pytest.mark.parametrize("shape", [(7, 7), (5, 40), (40, 5), (3000, 24), (24, 2100), (1, 9), (9, 1)])
def test_dense_values_are_those_of_a_decomposition(shape):
    """Both sides longer, and longer than one block."""
    change_IO = np.random.default_rng(0).standard_normal(shape).astype("float32") * np.float32(1e-4)
    found = find_values(change_IO)
    expected = scipy.linalg.svdvals(change_IO.astype("float64"))
    assert found.shape == (min(shape),) and found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-8 * expected[0])


@pytest.mark.parametrize(("inputs", "rank", "outputs"), [(30, 4, 50), (50, 4, 30), (6, 10, 8), (6, 6, 6), (9, 1, 1)])
def test_values_of_a_product_are_those_of_the_dense_product(inputs, rank, outputs):
    """Also where the rank is above a side of the matrix, which has that many values at most."""
    generator = np.random.default_rng(1)
    a_IR, b_RO = generator.standard_normal((inputs, rank)), generator.standard_normal((rank, outputs))
    found = find_values_of_product(a_IR.astype("float32"), b_RO.astype("float32"))
    expected = scipy.linalg.svdvals(a_IR.astype("float32").astype("float64") @ b_RO.astype("float32"))
    count = min(len(found), len(expected))
    assert len(found) <= rank
    np.testing.assert_allclose(found[:count], expected[:count], atol=1e-12 * expected[0])
    assert not expected[count:].size or expected[count:].max() < 1e-12 * expected[0]


@pytest.mark.parametrize("rank", [1, 2, 9, 10, 30])
def test_the_rank_of_equal_values_is_nine_tenths_of_them(rank):
    """Of ten equal values nine have exactly 90 %: the rounding of a sum does not ask for the tenth."""
    values = np.full(rank, 0.3)
    expected = {1: 1, 2: 2, 9: 9, 10: 9, 30: 27}[rank]
    assert count_rank(values) == expected
    assert find_stable_rank(values) == pytest.approx(rank)


def test_ranks_of_known_matrices():
    generator = np.random.default_rng(2)
    for rank in (1, 5, 20):
        left, _ = np.linalg.qr(generator.standard_normal((64, rank)))
        right, _ = np.linalg.qr(generator.standard_normal((48, rank)))
        values = find_values((left @ right.T).astype("float32"))
        assert count_rank(values, 1 - 1e-9) == rank
        assert count_rank(values) == int(np.ceil(0.9 * rank))
        assert find_stable_rank(values) == pytest.approx(rank, rel=1e-5)


def test_a_few_large_values_hide_many_small_ones():
    """By squares, as variance counts: 90 % of 10^2 + 30 * 1^2 needs 18 of them, of their plain sum 27."""
    values = np.array([10.0] + [1.0] * 30)
    assert count_rank(values) == 18
    assert find_stable_rank(values) == pytest.approx(1.3)


def test_no_change_has_rank_zero():
    assert count_rank(find_values(np.zeros((4, 6), "float32"))) == 0
    assert find_stable_rank(find_values(np.zeros((4, 6), "float32"))) == 0.0
    assert count_rank(np.array([])) == 0 and find_stable_rank(np.array([])) == 0.0


def test_tiny_changes_are_not_lost():
    """Squares of 1e-30 are no numbers of float32."""
    change_IO = np.diag([3e-30, 1e-30]).astype("float32")
    np.testing.assert_allclose(find_values(change_IO), [3e-30, 1e-30], rtol=1e-6)
