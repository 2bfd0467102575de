"""See `mean_figure`."""

from __future__ import annotations

from llama_exp.protocol.arms import answer_mean, average_by_block, average_by_seed
from llama_exp.protocol.obtained import ALL, Drawing, Obtained, Question, Series


def mean_figure(question: Question) -> Obtained:
    """The mean of a quantity.

    Formula: mean over seeds of y; runs that share a seed are averaged first.
    Interval: Student's t over the seeds, n - 1 degrees of freedom.
    Source: Student 1908.
    """
    blocks = average_by_block(question.arms[ALL], "y")
    name = question.names["y"]
    points = tuple((float(number), value) for number, value in enumerate(blocks.values()))
    drawing = Drawing("seed, in order", name, (Series("", points),))
    return answer_mean(average_by_seed(blocks), question.confidence, name, drawing)
