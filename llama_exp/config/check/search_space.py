"""A search space out of Hydra's grammar.

a,b,c   choice(a,b,c)       one of these, as written
range(start,stop,step)      numbers on a scale; `stop` is not one of them
interval(low,high)          any number between, both ends included; int(interval(1,8)): integers
tag(log, ...)               of the last two: numbers count by their logarithm
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from llama_exp.config.check.sweep_points import find_wrong_count
from llama_exp.config.check.typed import show
from llama_exp.config.plugins import PROCESSES_LAUNCHER
from llama_exp.errors import Problem
from llama_exp.limits.search import LIMITS, SECTION, Axis, find_objective_problems, find_option_problems

LOG = "log"


def find_search_problems(hydra: Any, sweeps: Sequence[Override]) -> Iterator[Problem]:
    """Every problem of a search: its options, its space, its launcher, and what is not installed.

    Args:
        hydra: the `hydra` node of the composed config.
        sweeps: the overrides that have several values.
    """
    axes, problems = read_axes(sweeps)
    yield from problems
    if not sweeps:
        action = "give a key several values: key=a,b,c, key=interval(low,high), or tag(log,interval(low,high))"
        yield Problem("has nothing to search over", f"{SECTION}.params", "no key with several values", action)
    yield from find_option_problems({key: hydra.sweeper.get(key) for key in LIMITS.values}, axes)
    if hydra.launcher.get("_target_") != PROCESSES_LAUNCHER:
        what = "runs its trials itself, as the launcher `processes` does, and no other one can"
        action = "set hydra/launcher=processes; other launchers go with grids: hydra/sweeper=basic"
        yield Problem(what, "hydra/launcher", str(hydra.launcher.get("_target_")).rpartition(".")[2], action)


def find_unfit_objectives(cfg: Any) -> Iterator[Problem]:
    """Where the sweeper of a command line of ours and the figures of its runs do not fit together.

    Args:
        cfg: composed, with a sweeper that `find_search_problems` finds nothing wrong with.
    """
    options = {key: cfg.hydra.sweeper.get(key) for key in LIMITS.values}
    yield from find_objective_problems(options, str(cfg.objective_metric))


def read_axes(sweeps: Sequence[Override]) -> tuple[list[Axis], list[Problem]]:
    """The axes of the space, and the problems of those that are none."""
    axes: list[Axis] = []
    problems: list[Problem] = []
    for sweep in sweeps:
        line = show(str(sweep.input_line))
        found = list(_find_problems(sweep, line))
        problems += found
        if not found:
            axes.append(_read_axis(sweep))
    return axes, problems


def _read_axis(sweep: Override) -> Axis:
    key, value = sweep.get_key_element(), sweep.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None and value.end is not None
        step = 1 if isinstance(value.start, int) and isinstance(value.end, int) else None
        return Axis(key, (), value.start, value.end, step, LOG in value.tags)
    texts = tuple(sweep.sweep_string_iterator())
    if not isinstance(value, RangeSweep):
        return Axis(key, tuple(dict.fromkeys(texts)))
    texts = tuple(sorted(texts, key=float))
    low: float = min(value.range())
    scale = abs(value.step)
    # In decimals, for 0.1 + 2 * 0.1 is not 0.3 in binary ones, and a scale must end at one of its values.
    high = Decimal(str(low)) + (len(texts) - 1) * Decimal(str(scale))
    return Axis(key, texts, low, type(low)(high), scale, LOG in value.tags)


def _find_problems(sweep: Override, line: str) -> Iterator[Problem]:
    """The problems of one key's values."""
    key, value = sweep.key_or_group, sweep.value()
    tags: set[str] = getattr(value, "tags", set())
    is_on_scale = isinstance(value, IntervalSweep | RangeSweep)
    if sweep.is_hydra_override():
        yield Problem("cannot differ between the trials of a search", key, line, "give one value")
    elif tags - {LOG} or (tags and not is_on_scale):
        what = "has a tag that means nothing here"
        yield Problem(what, key, line, "write tag(log,interval(low,high)), or leave the tag out")
    elif isinstance(value, IntervalSweep):
        yield from _interval_problems(key, line, value.start, value.end, LOG in tags)
    elif problem := find_wrong_count(sweep, line):
        yield problem
    elif isinstance(value, RangeSweep):
        yield from _range_problems(key, line, value, LOG in tags)
    elif len(texts := list(sweep.sweep_string_iterator())) > len(set(texts)):
        yield Problem("has a value more than once", key, line, "leave all but one out")


def _interval_problems(key: str, line: str, low: float | None, high: float | None, log: bool) -> Iterator[Problem]:
    if low is None or high is None or type(low) is not type(high) or not (math.isfinite(low) and math.isfinite(high)):
        yield Problem("is no interval of finite numbers", key, line, "write interval(low,high)")
    elif low >= high:
        yield Problem("has no values between its ends", key, line, "write interval(low,high) with low below high")
    elif log and low <= 0:
        yield Problem("has no logarithm at its lower end", key, line, "begin above 0: tag(log,interval(1e-5,1e-2))")


def _range_problems(key: str, line: str, value: RangeSweep, log: bool) -> Iterator[Problem]:
    if log and not all(type(number) is int for number in (value.start, value.stop, value.step)):
        yield Problem("has a logarithm with integers only", key, line, "write tag(log,interval(low,high))")
    elif log and (abs(value.step) != 1 or min(value.start or 0, value.stop or 0) < 1):
        action = "write tag(log,range(1,65)), or give the values one by one: 1,2,4,8"
        yield Problem("a logarithmic range has the step 1 and begins above 0", key, line, action)
