"""Which way of a figure is the good one."""

import pytest

from llama_exp.limits.figures import Direction, find_number, find_unknown_figure, is_better, name_figure, split_figure


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


def test_a_number_is_found_by_its_path():
    tree = {"validation": {"loss": 2.0, "perplexity": "Infinity"}, "evaluation": {"a.b": {"acc,none": 0.5, "x": True}}}
    assert find_number(tree, "validation.loss") == 2.0
    assert find_number(tree, "validation.perplexity") == float("inf")
    assert find_number(tree, "evaluation.a.b.acc,none") == 0.5
    for path in ("validation", "evaluation.a", "evaluation.a.b.x", "validation.loss.more", ""):
        assert find_number(tree, path) is None


def test_a_table_calls_a_figure_by_words():
    names = {"validation.loss": "validation loss", "evaluation.docs.exact_match": "docs exact match"}
    assert {path: name_figure(path) for path in names} == names


def test_an_unknown_figure_is_told_with_those_that_there_are():
    (problem,) = find_unknown_figure("validation.los", "objective_metric", ["validation.loss"], ["mine"])
    assert "validation.loss" in problem.action and "evaluation.mine.<figure>" in problem.action
    assert not list(find_unknown_figure("evaluation.mine.reward:max", "k", [], ["mine"]))
    assert not list(find_unknown_figure("evaluation.any.thing", "k", [], None))
    (problem,) = find_unknown_figure("evaluation.docs.loss", "k", ["validation.loss"], [])
    assert "evaluation.sets" in problem.action
