"""Names of a run's figures, and which way of each is the good one.

A figure is a dotted path in `summary.json`: `validation.loss`, `evaluation.<name>.accuracy`, `train_loss`. There
`validation.loss` and all of `evaluation` are those of the weights that the run leaves. One whose last word is not in
the table below says itself what is good: `evaluation.mine.regret:min`, `evaluation.mine.reward:max`.
"""

from __future__ import annotations

import enum


class Direction(enum.Enum):
    """Which values of an objective are good ones."""

    minimize = "minimize"
    maximize = "maximize"


SUFFIXES = {":min": Direction.minimize, ":max": Direction.maximize}
# The last word of a figure's path -> which way is good.
DIRECTIONS = {
    **dict.fromkeys(
        (
            *("loss", "train_loss", "perplexity", "bits_per_byte", "first", "best", "last", "seconds"),
            *("peak_memory_bytes", "word_perplexity", "byte_perplexity"),
        ),
        Direction.minimize,
    ),
    **dict.fromkeys(
        (
            *("accuracy", "normalized_accuracy", "exact_match", "f1", "tokens_per_second", "mfu"),
            *("acc", "acc_norm", "bleu", "chrf", "rouge1", "rouge2", "rougeL"),  # as lm-evaluation-harness says
        ),
        Direction.maximize,
    ),
}


def split_figure(text: str) -> tuple[str, Direction | None]:
    """The path of a figure, and which way is good; None: neither the table nor the text says it."""
    for suffix, direction in SUFFIXES.items():
        if text.endswith(suffix):
            return text.removesuffix(suffix), direction
    return text, DIRECTIONS.get(text.rpartition(".")[2].partition(",")[0])


def is_better(new: float, old: float | None, direction: Direction) -> bool:
    """Whether a value is better than an earlier one (None: there is none); NaN never is."""
    if new != new:
        return False
    if old is None or old != old:
        return True
    return new < old if direction is Direction.minimize else new > old
