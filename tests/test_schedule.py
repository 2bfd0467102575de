"""Learning rates against plain Python formulas."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from llama_exp import backend, rates, schedule

pytestmark = pytest.mark.neutral

PEAK, STEPS, WARMUP, FINAL, DECAY = 3e-3, 50, 7, 0.1, 20


def cosine(u):
    p = (u - WARMUP) / (STEPS - WARMUP)
    return PEAK * (u / WARMUP if u < WARMUP else FINAL + (1 - FINAL) * (1 + math.cos(math.pi * p)) / 2)


def linear(u):
    return PEAK * (u / WARMUP if u < WARMUP else 1 - (1 - FINAL) * (u - WARMUP) / (STEPS - WARMUP))


def constant(u):
    return PEAK * min(u / WARMUP, 1)


def wsd(u):
    if u <= STEPS - DECAY:
        return constant(u)
    return PEAK * (1 - (1 - FINAL) * (u - (STEPS - DECAY)) / DECAY)


def wsd_sqrt(u):
    """Hägele et al. 2024, the 1-sqrt decay: (1 - sqrt((n - (N - N_decay)) / N_decay)), here to FINAL."""
    if u <= STEPS - DECAY:
        return constant(u)
    return PEAK * (FINAL + (1 - FINAL) * (1 - np.sqrt((u - (STEPS - DECAY)) / DECAY)))


KEYS = {
    "cosine": {"final_fraction": FINAL},
    "linear": {"final_fraction": FINAL},
    "constant": {},
    "wsd": {"final_fraction": FINAL, "decay_steps": DECAY, "decay_shape": "linear"},
    "wsd_sqrt": {"final_fraction": FINAL, "decay_steps": DECAY, "decay_shape": "sqrt"},
}


def build(name, **changes):
    options = {"learning_rate": PEAK, "num_steps": STEPS, "warmup_steps": WARMUP, **KEYS[name], **changes}
    return getattr(schedule, name.partition("_")[0])(**options)


@pytest.mark.parametrize("name", KEYS)
def test_every_update_has_the_rate_of_the_formula(name):
    rates = [float(build(name)(iterations)) for iterations in range(STEPS)]
    expected = [globals()[name](iterations + 1) for iterations in range(STEPS)]
    assert rates == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("name", KEYS)
def test_first_peak_last_and_after(name):
    rate = build(name)
    assert float(rate(0)) == pytest.approx(PEAK / WARMUP)
    assert float(rate(WARMUP - 1)) == pytest.approx(PEAK, rel=1e-6)
    last = PEAK if name == "constant" else PEAK * FINAL
    assert float(rate(STEPS - 1)) == pytest.approx(last, rel=1e-6)
    assert float(rate(10 * STEPS)) == pytest.approx(last, rel=1e-6)


@pytest.mark.parametrize("name", KEYS)
def test_no_warmup_starts_below_or_at_the_peak(name):
    rates = [float(build(name, warmup_steps=0)(iterations)) for iterations in range(STEPS)]
    assert 0.9 * PEAK < rates[0] <= PEAK * (1 + 1e-6)
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in zip(rates, rates[1:], strict=False))


def compiled_rates(rate, jit, count):
    call = backend.compiled(lambda iterations: ops.cast(rate(iterations), "float32"), [], [], jit)
    return [float(call(np.int32(iterations))) for iterations in range(count)]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3])
def test_two_curves_agree_to_the_last_bit_for_as_long_as_they_say(fraction, jit):
    """The trunk of a WSD run: decays of other beginnings, shapes and lengths, until the earlier one begins."""
    early = build("wsd", final_fraction=fraction)
    late = build("wsd_sqrt", final_fraction=fraction, num_steps=8 * STEPS, decay_steps=3)
    first, second = (rates.Curve(**rate.get_config()) for rate in (early, late))
    assert first.agrees_until(second) == second.agrees_until(first) == STEPS - DECAY
    mine, theirs = (compiled_rates(rate, jit, STEPS - DECAY + 1) for rate in (early, late))
    assert mine[:-1] == theirs[:-1] and mine[-1] != theirs[-1]


@pytest.mark.parametrize(
    ("name", "changes", "other", "others", "until"),
    [
        ("wsd", {}, "constant", {"num_steps": 9 * STEPS}, STEPS - DECAY),
        ("constant", {}, "constant", {"num_steps": 9 * STEPS}, math.inf),
        ("wsd", {}, "wsd", {"warmup_steps": WARMUP + 1}, 0),
        ("wsd", {}, "wsd", {"learning_rate": 2e-3}, 0),
        ("wsd", {"warmup_steps": 0}, "wsd", {"warmup_steps": 1}, math.inf),
        ("wsd", {}, "wsd", {"decay_steps": DECAY + 5}, STEPS - DECAY - 5),
        ("wsd", {}, "wsd", {"final_fraction": 0.2}, STEPS - DECAY),
        ("wsd", {}, "wsd_sqrt", {}, STEPS - DECAY),
        ("cosine", {}, "cosine", {"num_steps": STEPS + 1}, WARMUP),
        ("cosine", {}, "linear", {}, WARMUP),
        ("linear", {}, "wsd", {"decay_steps": STEPS - WARMUP}, math.inf),
    ],
)
def test_how_long_two_schedules_agree(name, changes, other, others, until):
    mine, theirs = build(name, **changes), build(other, **others)
    curve = rates.Curve(**mine.get_config())
    assert curve.agrees_until(rates.Curve(**theirs.get_config())) == until
    last = min(int(until) if until < math.inf else STEPS, STEPS)
    assert [float(mine(i)) for i in range(last)] == [float(theirs(i)) for i in range(last)]


@pytest.mark.parametrize("name", KEYS)
def test_round_trip_through_keras_serialization(name):
    rate = build(name)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(rate))
    assert [float(again(i)) for i in (0, 9, 40)] == [float(rate(i)) for i in (0, 9, 40)]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("cosine", {"warmup_steps": STEPS + 1}, "warmup_steps=51"),
        ("linear", {"final_fraction": 1.5}, "final_fraction=1.5"),
        ("wsd", {"decay_steps": STEPS}, "decay_steps=50"),
        ("wsd", {"decay_steps": 0}, "decay_steps=0"),
        ("wsd", {"decay_shape": "cosine"}, "decay_shape='cosine'"),
    ],
)
def test_impossible_values_are_named(name, changes, message):
    with pytest.raises(ValueError, match=message):
        build(name, **changes)
