"""What rounding explains: little at first, bounded later."""

import pytest

from llama_exp.reproduction.tolerance import tolerated_gap

# Gaps of losses that were measured on the default config, two numbers of threads or two backends: see the module.
MEASURED = [(25, "train", 9e-8), (65, "train", 1e-4), (85, "train", 4e-4), (105, "train", 4e-3), (145, "train", 1e-2)]
MEASURED += [(200, "validation", 1.13e-2), (660, "train", 1e-2), (980, "train", 2e-2), (1200, "validation", 3.9e-3)]
MEASURED += [(1200, "train", 2.75e-2), (20, "train", 2e-7)]
SHORT = [(0, "validation", 3e-6), (10, "train", 1e-5), (15, "train", 2e-4), (65, "train", 1e-2), (165, "train", 8e-3)]


@pytest.mark.parametrize(("step", "split", "gap"), MEASURED)
def test_measured_rounding_is_tolerated(step, split, gap):
    assert gap < tolerated_gap(step, split, "float32", False)


@pytest.mark.parametrize(("step", "split", "gap"), SHORT)
def test_measured_rounding_of_bfloat16_is_tolerated(step, split, gap):
    assert gap < tolerated_gap(step, split, "mixed_bfloat16", False)


@pytest.mark.parametrize(("step", "gap"), [(5, 3e-4), (10, 5e-4), (15, 1e-4)])
def test_a_learning_rate_one_percent_higher_is_not(step, gap):
    assert gap > tolerated_gap(step, "train", "float32", False)


@pytest.mark.parametrize(("step", "gap"), [(5, 4e-3), (10, 9e-3), (20, 2e-3)])
def test_another_seed_is_not(step, gap):
    for policy in ("float32", "mixed_bfloat16"):
        assert gap > tolerated_gap(step, "train", policy, False)


def test_the_limit_never_falls_and_ends():
    limits = [tolerated_gap(step, "validation", "float32", False) for step in (0, 5, 50, 500, 10**9)]
    assert limits == sorted(limits) and limits[1] == 2 * limits[0] and limits[-1] == 0.02


def test_small_integers_round_like_short_types():
    assert tolerated_gap(0, "train", "float32", True) == tolerated_gap(0, "train", "bfloat16", False)
