"""Learning rates against plain Python formulas."""

import math

import keras
import pytest

from llama_exp import schedule

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


KEYS = {
    "cosine": {"final_fraction": FINAL},
    "linear": {"final_fraction": FINAL},
    "constant": {},
    "wsd": {"final_fraction": FINAL, "decay_steps": DECAY},
}


def build(name, **changes):
    options = {"learning_rate": PEAK, "num_steps": STEPS, "warmup_steps": WARMUP, **KEYS[name], **changes}
    return getattr(schedule, name)(**options)


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
    ],
)
def test_impossible_values_are_named(name, changes, message):
    with pytest.raises(ValueError, match=message):
        build(name, **changes)
