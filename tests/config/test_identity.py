"""A config as plain data; the hash is tested with the command line that leads to it."""

from llama_exp.config.identity import flatten


def test_flatten():
    tree = {"a": {"b": {"c": 1}, "none": {}}, "l": [1, {"d": 2}], "n": None}
    assert flatten(tree) == {"a.b.c": 1, "a.none": {}, "l": [1, {"d": 2}], "n": None}
    assert flatten({}) == {}
