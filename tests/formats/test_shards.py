"""Weights into files: in order, all of them, none too large unless it is alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_exp.formats.shards import split_into_shards


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [
        (100, [["a", "b", "c", "d"]]),
        (17, [["a", "b", "c", "d"]]),
        (16, [["a", "b", "c"], ["d"]]),
        (10, [["a", "b"], ["c"], ["d"]]),
        (1, [["a"], ["b"], ["c"], ["d"]]),
    ],
)
def test_as_many_as_fit(max_bytes, expected):
    assert split_into_shards({"a": 3, "b": 2, "c": 11, "d": 1}, max_bytes) == expected


@given(st.lists(st.integers(0, 20), min_size=1), st.integers(1, 30))
def test_nothing_is_lost_or_too_large(numbers, max_bytes):
    sizes = {str(i): size for i, size in enumerate(numbers)}
    found = split_into_shards(sizes, max_bytes)
    assert [name for shard in found for name in shard] == list(sizes)
    assert all(len(shard) == 1 or sum(sizes[name] for name in shard) <= max_bytes for shard in found)
    for shard, following in zip(found, found[1:], strict=False):
        assert sum(sizes[name] for name in shard) + sizes[following[0]] > max_bytes
