"""Parameters that take seconds of compilation each on JAX: some are repeated there every day, others as slow tests."""

import os

import pytest

SLOW_ON_JAX = [pytest.mark.slow] if os.environ.get("KERAS_BACKEND") == "jax" else []


def with_others(daily, others):
    """Parameters: those of `daily`, and `others`, which are slow tests on JAX. Tuples are several parameters each."""
    return [*daily, *_marked(others, SLOW_ON_JAX)]


def one_a_day(daily, others):
    """Parameters as of `with_others`, but `others` are slow tests everywhere: they differ in what others test too."""
    return [*daily, *_marked(others, pytest.mark.slow)]


def _marked(others, marks):
    rows = [value if isinstance(value, tuple) else (value,) for value in others]
    return [pytest.param(*row, marks=marks) for row in rows]


def slow_on_jax(test):
    """Marks a whole test so."""
    return SLOW_ON_JAX[0](test) if SLOW_ON_JAX else test
