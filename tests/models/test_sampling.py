"""Choosing tokens: against a NumPy oracle in float64, and the limits."""

import keras
import numpy as np
import pytest

from llama_exp.models.sampling import MAX_UNIFORM, Sampler, choose, sampler, uniform_numbers

pytestmark = pytest.mark.neutral

ROWS, VOCABULARY = 4000, 50


def oracle(logits, uniform, temperature, top_k, top_p):
    """One row at a time: sort, cut, and walk along the cumulative probabilities."""
    tokens = []
    for row, number in zip(logits.astype("float64"), uniform.astype("float64"), strict=True):
        order = np.argsort(-row, kind="stable") if top_k or top_p else np.arange(len(row))
        order = order[:top_k]
        probabilities = np.exp((row[order] - row.max()) / temperature)
        probabilities /= probabilities.sum()
        if top_p:
            kept = 1 + np.searchsorted(np.cumsum(probabilities), top_p, side="left")
            order, probabilities = order[:kept], probabilities[:kept] / probabilities[:kept].sum()
        tokens.append(order[np.searchsorted(np.cumsum(probabilities), number, side="right")])
    return np.array(tokens)


def run(logits, uniform, temperature=1.0, top_k=None, top_p=None, num_tokens=None, holes=()):
    kind = sampler(temperature, top_k, top_p, num_tokens or logits.shape[-1], holes)
    arrays = [np.float32(value) for value in (temperature, 1.0 if top_p is None else top_p)]
    logits, uniform = (keras.ops.convert_to_tensor(array, dtype="float32") for array in (logits, uniform))
    return keras.ops.convert_to_numpy(choose(kind, logits, uniform, *arrays))


def data(rows=ROWS, vocabulary=VOCABULARY):
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (rows, vocabulary)).astype("float32"), uniform_numbers(1, rows, 1)[:, 0]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize(("top_k", "top_p"), [(None, None), (7, None), (None, 0.8), (7, 0.8), (1, None), (None, 1e-6)])
def test_the_oracle_chooses_the_same_tokens(temperature, top_k, top_p):
    logits, uniform = data()
    expected = oracle(logits, uniform, temperature, top_k, top_p)
    differing = np.count_nonzero(run(logits, uniform, temperature, top_k, top_p) != expected)
    # A number within float32's rounding of a border between two tokens may fall on either side.
    assert differing <= 2
    assert len(np.unique(expected)) > 20


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        (0.0, None, None),
        (2.5, None, None),
        (2.5, 7, None),
        (2.5, None, 0.8),
        (2.5, 7, 0.8),
    ],
)
def test_ids_without_a_token_are_no_candidates(temperature, top_k, top_p):
    """The same tokens as from a vocabulary that lacks them."""
    holes = (0, 3, 20, 21, VOCABULARY - 1)
    logits, uniform = data()
    logits[:, list(holes)] += 8  # the model likes them best
    kept = np.setdiff1d(np.arange(VOCABULARY), holes)
    expected = kept[run(logits[:, kept], uniform, temperature, top_k, top_p)]
    found = run(logits, uniform, temperature, top_k, top_p, holes=holes)
    assert not np.isin(found, holes).any()
    assert np.count_nonzero(found != expected) <= 2


def test_more_candidates_than_tokens_bring_none_without_a_token():
    logits, uniform = data()
    assert not np.isin(run(logits, uniform, 2.5, VOCABULARY - 1, holes=(0, 3, VOCABULARY - 1)), (0, 3, 49)).any()


def test_greedy_is_the_likeliest_token():
    logits, uniform = data()
    np.testing.assert_array_equal(run(logits, uniform, temperature=0.0), logits.argmax(-1))


@pytest.mark.parametrize("arguments", [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-30}])
def test_the_narrowest_sampling_is_greedy(arguments):
    logits, uniform = data()
    np.testing.assert_array_equal(run(logits, uniform, **arguments), logits.argmax(-1))


def test_frequencies_are_the_probabilities():
    logits = np.log(np.array([0.5, 0.25, 0.15, 0.07, 0.03], "float32"))
    tokens = run(np.tile(logits, (40_000, 1)), uniform_numbers(3, 40_000, 1)[:, 0])
    shares = np.bincount(tokens, minlength=5) / 40_000
    np.testing.assert_allclose(shares, np.exp(logits), rtol=0, atol=4 * np.sqrt(0.25 / 40_000))


@pytest.mark.parametrize("vocabulary", [2, 50, 32_000])
def test_the_largest_number_never_picks_a_token_without_probability(vocabulary):
    logits = np.full((3, vocabulary), -1e9, "float32")
    logits[:, :2] = 0.0
    largest = np.full(3, MAX_UNIFORM, "float32")
    for arguments in ({}, {"top_k": 2}, {"top_p": 0.99}):
        np.testing.assert_array_equal(run(logits, largest, **arguments), [1, 1, 1])
    even = run(np.zeros((3, vocabulary), "float32"), largest)
    assert (even < vocabulary).all()


def test_uniform_numbers_depend_on_seed_row_and_step_only():
    numbers = uniform_numbers(5, num_steps=8, num_rows=3)
    assert numbers.shape == (8, 3) and numbers.dtype == np.float32
    np.testing.assert_array_equal(uniform_numbers(5, num_steps=20, num_rows=2)[:8], numbers[:, :2])
    assert len(np.unique(numbers)) == numbers.size
    assert not np.isin(uniform_numbers(6, 8, 3), numbers).any()
    many = uniform_numbers(0, 100_000, 1)
    assert 0 <= many.min() < 1e-4 and 1 - 1e-4 < many.max() <= MAX_UNIFORM


def test_one_compiled_function_serves_all_numbers():
    assert sampler(0.5, None, 0.9, 50) == sampler(1.5, None, 0.1, 50) == Sampler(50, False, None, True)
    assert sampler(1.0, 50, 1.0, 50) == Sampler(50, False, None, False)
    assert sampler(0.0, None, None, 50) == Sampler(50, True, None, False)


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {}, {"top_k": 3}, {"top_p": 0.9}])
def test_ids_without_a_meaning_are_never_chosen(arguments):
    logits, uniform = data()
    logits[:, 40:] += 100
    tokens = run(logits, uniform, **arguments, num_tokens=40)
    assert tokens.max() < 40
    np.testing.assert_array_equal(tokens, run(logits[:, :40], uniform, **arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"top_k": 0},
        {"top_k": 2.5},
        {"top_k": True},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"temperature": 0.0, "top_k": 5},
        {"temperature": 0.0, "top_p": 0.5},
    ],
)
def test_impossible_arguments_are_named_with_their_value(arguments):
    with pytest.raises(ValueError, match="{}={!r}".format(*list(arguments.items())[-1])):
        sampler(**({"temperature": 1.0, "top_k": None, "top_p": None, "num_tokens": 50} | arguments))
