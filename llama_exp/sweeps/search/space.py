"""Axes of a search space as distributions of Optuna's, and sampled values as overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from llama_exp.limits.search import Axis


def find_distributions(axes: Sequence[Axis]) -> dict[str, BaseDistribution]:
    """Key -> distribution. Choices are their own texts, so that nothing between here and Hydra can change them."""
    return {axis.key: _find_distribution(axis) for axis in axes}


def write_overrides(axes: Sequence[Axis], point: Mapping[str, Any]) -> tuple[str, ...]:
    """The overrides of a point, in the order of the axes; `point`: key -> value of the axis' distribution."""
    return tuple(f"{axis.key}={_write(axis, point[axis.key])}" for axis in axes)


def _find_distribution(axis: Axis) -> BaseDistribution:
    low, high = axis.low, axis.high
    if low is None or high is None:
        return CategoricalDistribution(axis.values)
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(low, high, log=axis.log, step=axis.step)


def _write(axis: Axis, value: Any) -> str:
    """A value as Hydra reads it back; of a range, as Hydra itself spells it."""
    if axis.values and axis.low is not None and axis.step is not None:
        return axis.values[round((value - axis.low) / axis.step)]
    return str(value)
