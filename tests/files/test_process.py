"""Who writes."""

import pytest

from llama_exp.files.process import ALONE, Process


def test_the_first_of_several_writes():
    assert [Process(rank, 3).is_writer for rank in range(3)] == [True, False, False]
    assert Process(0, 1) == ALONE and ALONE.is_writer


@pytest.mark.parametrize(("rank", "size"), [(1, 1), (-1, 2), (2, 2), (0, 0)])
def test_impossible_ranks_are_refused(rank, size):
    with pytest.raises(ValueError, match=f"rank={rank}"):
        Process(rank, size)
