"""Every optimizer against its paper in NumPy, and what all of them share."""

import keras
import numpy as np
import pytest
from updates import OWN, SHAPES, expected, gradients, make, train, values, variables

from llama_exp import schedule
from llama_exp.trainer.state import optimizer_variables

pytestmark = pytest.mark.neutral

NAMES = tuple(OWN)
FACTORS = {"query/kernel": 4.0, "norm/scale": 0.25}


def close(found, wanted, atol=1e-5):
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=atol)


@pytest.mark.parametrize("name", NAMES)
def test_the_paper_with_a_schedule_clipping_and_rates_of_single_variables(name):
    rate = schedule.linear(learning_rate=0.05, num_steps=6, warmup_steps=2, final_fraction=0.2)
    optimizer = make(name, rate, global_clipnorm=0.5)
    optimizer.multiply_rates(FACTORS)
    rates = [float(rate(u)) for u in range(6)]
    wanted = expected(name, variables(), 6, lambda u: rates[u - 1], factors=FACTORS, clip=0.5)
    close(train(optimizer, variables(), 6, fuse=True), wanted)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sgd", {"nesterov": True}),
        ("sgd", {"momentum": 0.0}),
        ("adafactor", {"multiply_by_parameter_scale": False}),
        ("muon", {"nesterov": False}),
    ],
)
def test_the_paper_in_another_way(name, changes):
    close(train(make(name, **changes), variables(), 3), expected(name, variables(), 3, lambda u: 0.05, **changes))


@pytest.mark.parametrize("name", NAMES)
def test_independent_decay_follows_the_schedule_and_neither_its_peak_nor_a_factor(name):
    def decayed(peak):
        rate = schedule.linear(learning_rate=peak, num_steps=4, warmup_steps=0, final_fraction=0.5)
        optimizer = make(name, rate, independent_weight_decay=True, peak=peak)
        optimizer.multiply_rates(FACTORS)
        weights = variables()
        train(optimizer, weights, 2, lambda step: [np.zeros_like(array) for array in gradients(step)])
        return values(weights)

    before, shares = values(variables()), (1 - 0.1 * 0.875) * (1 - 0.1 * 0.75)
    for found in (decayed(0.05), decayed(0.005)):
        close(found, [array * (shares if array.ndim == 2 else 1) for array in before], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_weights_move_by_float32_arithmetic(name):
    """The state is that of float32 weights to float32's rounding; the weights are these, rounded."""
    weights, exact = variables("bfloat16"), make(name, 0.02)
    optimizer = make(name, 0.02)
    start = variables()
    for wide, narrow in zip(start, weights, strict=True):
        wide.assign(narrow.value)  # rounded
    trained, wanted = train(optimizer, weights, 1), train(exact, start, 1)
    assert {x.dtype for x in optimizer.variables} <= {"float32", "int32", "int64"}
    for ours, theirs in zip(trained, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2**-8)
    for ours, theirs in zip(optimizer.variables, exact.variables, strict=True):
        np.testing.assert_allclose(np.asarray(ours.value), np.asarray(theirs.value), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_of_zeros_keeps_everything_finite(name):
    found = train(make(name), variables(), 2, lambda step: [np.zeros_like(array) for array in gradients(step)])
    assert all(np.isfinite(array).all() for array in found)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_is_a_keras_object_that_can_be_made_again(name):
    optimizer = make(name, independent_weight_decay=True, global_clipnorm=2.0)
    optimizer.multiply_rates(FACTORS)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer) and again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("name", NAMES)
def test_state_that_a_checkpoint_holds_goes_on_to_the_same_bits(name):
    straight, stopped, goes_on = make(name), make(name), make(name)
    whole = train(straight, variables(), 4)
    weights, again = variables(), variables()
    train(stopped, weights, 2)
    goes_on.build(again)
    saved = optimizer_variables(stopped)
    assert saved.keys() == optimizer_variables(goes_on).keys()
    for path, variable in optimizer_variables(goes_on).items():
        variable.assign(saved[path].value)
    for variable, value in zip(again, weights, strict=True):
        variable.assign(value.value)
    for ours, theirs in zip(train(goes_on, again, 2, lambda step: gradients(step + 2)), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_factors_of_one_change_nothing():
    plain, with_ones = make("adamw"), make("adamw")
    with_ones.multiply_rates(dict.fromkeys(SHAPES, 1.0))
    for a, b in zip(train(plain, variables(), 2), train(with_ones, variables(), 2), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_factor_that_reaches_no_variable_is_an_error():
    optimizer = make("adamw")
    optimizer.multiply_rates({"query/kernl": 2.0})
    with pytest.raises(ValueError, match="no variable that trains has the path query/kernl"):
        optimizer.build(variables())
    built = make("adamw")
    built.build(variables())
    with pytest.raises(ValueError, match="too late"):
        built.multiply_rates({})


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sgd", {"momentum": 0.0, "nesterov": True}, "optimizer.nesterov"),
        ("lion", {"beta_1": 1.0}, "optimizer.beta_1"),
        ("adafactor", {"beta_2_decay": 0.8}, "a number below 0"),
        ("muon", {"update_rms": 0.0}, "optimizer.update_rms"),
        ("adamw", {"independent_weight_decay": True, "weight_decay": 1.0}, "optimizer.weight_decay"),
    ],
)
def test_impossible_numbers_are_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        make(name, **changes)


def test_independent_decay_must_know_the_peak():
    rate = schedule.constant(learning_rate=0.1, num_steps=4, warmup_steps=0)
    with pytest.raises(ValueError, match="peak"):
        make("adamw", rate, independent_weight_decay=True)
