"""Which way of a figure is the good one."""

import pytest

from llama_exp.limits.figures import Direction, is_better, split_figure


@pytest.mark.parametrize(
    ("text", "path", "direction"),
    [
        ("validation.loss", "validation.loss", Direction.minimize),
        ("evaluation.arc.accuracy", "evaluation.arc.accuracy", Direction.maximize),
        ("evaluation.hellaswag.acc_norm,none", "evaluation.hellaswag.acc_norm,none", Direction.maximize),
        ("evaluation.mine.regret", "evaluation.mine.regret", None),
        ("evaluation.mine.regret:min", "evaluation.mine.regret", Direction.minimize),
        ("evaluation.mine.reward:max", "evaluation.mine.reward", Direction.maximize),
    ],
)
def test_the_direction_of_a_figure(text, path, direction):
    assert split_figure(text) == (path, direction)


def test_nan_is_never_better_and_anything_is_better_than_nan():
    nan = float("nan")
    for direction in Direction:
        assert not is_better(nan, 1.0, direction)
        assert not is_better(nan, None, direction)
        assert is_better(1.0, nan, direction)
        assert is_better(1.0, None, direction)
        assert not is_better(1.0, 1.0, direction)
    assert is_better(1.0, 2.0, Direction.minimize)
    assert is_better(2.0, 1.0, Direction.maximize)
