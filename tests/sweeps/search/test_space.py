"""Axes as distributions of Optuna's, and sampled values as overrides that Hydra reads back."""

import warnings

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.study import create_study

from llama_exp.config.check.search_space import read_axes
from llama_exp.sweeps.search.space import find_distributions, write_overrides

PARSER = OverridesParser.create()
numbers = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda number: number == 0 or abs(number) > 1e-6)


def axes_of(*lines):
    axes, problems = read_axes(PARSER.parse_overrides(list(lines)))
    assert problems == []
    return axes


def draw(axes, seed=0, count=20):
    """Points of a space as overrides; no distribution warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = create_study(sampler=RandomSampler(seed=seed))
        return [write_overrides(axes, study.ask(find_distributions(axes)).params) for _ in range(count)]


def values_of(line, seed=0, count=20):
    """What Hydra reads of the values drawn from one override."""
    lines = [line for (line,) in draw(axes_of(line), seed, count)]
    return [override.value() for override in PARSER.parse_overrides(lines)]


@settings(max_examples=40, deadline=None)
@given(numbers, numbers, st.integers(0, 2**31))
def test_an_interval_holds_its_values_and_hydra_reads_the_same_number(one, other, seed):
    low, high = sorted((one, other))
    if low == high:
        return
    for value in values_of(f"a.b=interval({low},{high})", seed, 3):
        assert type(value) is float and low <= value <= high


@settings(max_examples=40, deadline=None)
@given(st.integers(-50, 50), st.integers(1, 60), st.integers(1, 7), st.booleans(), st.integers(0, 2**31))
def test_a_range_has_the_values_of_hydras_grid(start, length, step, is_reversed, seed):
    line = f"k=range({start},{start + length},{step})"
    if is_reversed:
        line = f"k=range({start + length},{start},{-step})"
    (sweep,) = PARSER.parse_overrides([line])
    grid = {int(text) for text in sweep.sweep_string_iterator()}
    drawn = values_of(line, seed, 5)
    assert set(drawn) <= grid and all(type(value) is int for value in drawn)


@settings(max_examples=40, deadline=None)
@given(st.decimals(-5, 5, places=2), st.integers(1, 30), st.decimals("0.01", 1, places=2), st.integers(0, 2**31))
def test_a_range_of_floats_is_spelled_as_hydra_spells_it(start, count, step, seed):
    line = f"k=range({float(start)},{float(start) + count * float(step)},{float(step)})"
    (sweep,) = PARSER.parse_overrides([line])
    texts = {f"k={text}" for text in sweep.sweep_string_iterator()}
    assert {drawn for (drawn,) in draw(axes_of(line), seed, 5)} <= texts


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(-(10**6), 10**6).map(str),
            st.floats(-1e3, 1e3).map(str),
            st.sampled_from(["null", "true", "[a,b]", "{x:1}", "'a, b'", '"q\'s"', "1e-4", "abc", "a\\,b", "'null'"]),
        ),
        min_size=2,
        max_size=6,
        unique=True,
    ),
    st.integers(0, 2**31),
)
def test_choices_are_kept_as_written(texts, seed):
    """Whatever the choices are, a trial has exactly what a grid's job would have."""
    (sweep,) = PARSER.parse_overrides([f"k={','.join(texts)}"])
    spelled = list(sweep.sweep_string_iterator())
    if len(set(spelled)) < len(spelled):
        return
    lines = {line for (line,) in draw(axes_of(str(sweep.input_line)), seed, 30)}
    assert lines <= {f"k={text}" for text in spelled}
    if not any(text == "null" or "'" in text for text in texts):  # which Hydra's choice() refuses, or unquotes
        grid = [override.value() for override in PARSER.parse_overrides([f"k={text}" for text in spelled])]
        assert all(value in grid for value in values_of(f"k=choice({','.join(texts)})", seed, 30))


@pytest.mark.parametrize(
    ("line", "kinds", "low", "high"),
    [
        ("k=int(interval(1,8))", int, 1, 8),
        ("k=tag(log,int(interval(1,1024)))", int, 1, 1024),
        ("k=tag(log,range(1,65))", int, 1, 64),
        ("k=tag(log,interval(1e-5,1e-1))", float, 1e-5, 1e-1),
        ("k=interval(0,1)", float, 0, 1),
    ],
)
def test_both_ends_are_possible(line, kinds, low, high):
    (axis,) = axes_of(line)
    assert (axis.low, axis.high, axis.log) == (low, high, "log" in line)
    values = values_of(line, count=300)
    assert {type(value) for value in values} == {kinds}
    assert low <= min(values) and max(values) <= high
    if kinds is int and high < 10:
        assert {low, high} <= set(values)


def test_a_logarithmic_interval_spreads_evenly_over_powers_of_ten():
    values = values_of("k=tag(log,interval(1e-6,1e-2))", count=400)
    counts = [sum(10.0**power <= value < 10.0 ** (power + 1) for value in values) for power in range(-6, -2)]
    assert all(70 < count < 130 for count in counts)


def test_prefixes_and_packages_of_keys_are_kept():
    assert [axis.key for axis in axes_of("+a.b=1,2", "++c=1,2", "db@here=x,y")] == ["+a.b", "++c", "db@here"]
