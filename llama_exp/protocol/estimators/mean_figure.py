"""See `mean_figure`."""

from __future__ import annotations

from llama_exp.protocol.arms import answer_mean, average_by_block, average_by_seed, number_values
from llama_exp.protocol.obtained import ALL, Drawing, Obtained, Question, Series


def mean_figure(question: Question) -> Obtained:
    """The mean of a quantity.

    Formula: mean over seeds of y; runs that share a seed are averaged first.
    Interval: Student's t over the seeds, n - 1 degrees of freedom.
    Source: Student 1908.
    """
    blocks = average_by_block(question.arms[ALL], "y")
    name = question.names["y"]
    drawing = Drawing("seed, in order", name, (Series("", number_values(blocks.values())),))
    return answer_mean(average_by_seed(blocks), question.confidence, name, drawing)
