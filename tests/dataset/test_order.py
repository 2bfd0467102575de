"""The order of examples: a bijection per epoch, stateless, O(1)."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_exp.dataset import Order

sizes = st.one_of(st.integers(1, 70), st.integers(71, 5000))
seeds = st.integers(-(2**70), 2**70)


@given(num_examples=sizes, seed=seeds, epoch=st.integers(0, 10**9))
def test_every_epoch_visits_each_example_once(num_examples, seed, epoch):
    indices = Order(num_examples, seed).indices(epoch * num_examples, num_examples)
    assert indices.dtype == np.int64
    assert np.array_equal(np.sort(indices), np.arange(num_examples))


@given(num_examples=sizes, seed=seeds, start=st.integers(0, 10**15), counts=st.lists(st.integers(0, 200), max_size=6))
def test_any_split_of_a_range_gives_the_same_indices(num_examples, seed, start, counts):
    order = Order(num_examples, seed)
    parts, position = [np.empty(0, np.int64)], start
    for count in counts:
        parts.append(order.indices(position, count))
        position += count
    assert np.array_equal(np.concatenate(parts), order.indices(start, sum(counts)))


@given(num_examples=st.integers(60, 5000), seed=seeds, epoch=st.integers(0, 10**6))
def test_epochs_and_seeds_have_orders_of_their_own(num_examples, seed, epoch):
    here = Order(num_examples, seed).indices(epoch * num_examples, num_examples)
    assert not np.array_equal(here, Order(num_examples, seed).indices((epoch + 1) * num_examples, num_examples))
    assert not np.array_equal(here, Order(num_examples, seed + 1).indices(epoch * num_examples, num_examples))
    assert not np.array_equal(here, np.arange(num_examples))


def test_the_order_is_fixed_for_good():
    # A checkpoint's cursor means this order: changing it would break every resumed run.
    assert Order(10, 0).indices(0, 20).tolist() == [1, 8, 0, 2, 5, 3, 9, 6, 4, 7] + [5, 7, 8, 3, 2, 6, 1, 9, 4, 0]


def test_positions_of_a_shuffle_are_spread_evenly():
    n = 1000
    order = Order(n, 7)
    epochs = np.stack([order.indices(epoch * n, n) for epoch in range(200)])
    means = epochs.mean(axis=0)  # what stands at one position, over many epochs
    assert abs(means.mean() - (n - 1) / 2) < 1e-6
    assert abs(means.std() - n / np.sqrt(12 * 200)) < 2  # as for independent uniform draws: 20.4
    neighbours = np.abs(np.diff(epochs, axis=1)).mean()
    assert abs(neighbours - n / 3) < 5  # mean distance of two uniform draws


def test_far_positions_cost_no_more():
    order = Order(123_457, 3)
    order.indices(0, 1000)

    def seconds(start):
        begin = time.perf_counter()
        for _ in range(20):
            order.indices(start, 1000)
        return time.perf_counter() - begin

    near, far = min(seconds(0) for _ in range(3)), min(seconds(10**15) for _ in range(3))
    assert far < 10 * near


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0, 1), "num_examples"), ((-3, 1), "num_examples"), ((3, "1"), "seed"), ((3, True), "seed"), ((3, 1.0), "seed")],
)
def test_impossible_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        Order(*arguments)


@pytest.mark.parametrize(("start", "count"), [(-1, 1), (0, -1), (2**63 - 1, 1)])
def test_impossible_positions_are_named(start, count):
    with pytest.raises(ValueError, match="positions"):
        Order(3, 0).indices(start, count)
