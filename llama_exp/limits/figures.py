"""Names of a run's figures, and which way of each is the good one.

A figure is a dotted path in `summary.json`: `validation.loss`, `evaluation.<name>.accuracy`, `train_loss`. There
`validation.loss`, `validation.perplexity` and all of `evaluation` are those of the weights that the run leaves. One
whose last word is not in the table below says itself what is good: `evaluation.mine.regret:min`,
`evaluation.mine.reward:max`.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from llama_exp.errors import Problem
from llama_exp.files.json_text import as_number


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
EVALUATION = "evaluation"
# Those that are known while a run trains, beside what its evaluations give.
OF_VALIDATION = ("validation.loss", "validation.perplexity")
# Those that only the end of a run knows.
AT_THE_END = (
    *("validation.first", "validation.best", "validation.last", "train_loss"),
    *("tokens_per_second", "peak_memory_bytes", "seconds"),
)


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


def name_figure(path: str) -> str:
    """A figure's path as a table of a sweep calls it: `validation loss`, `docs accuracy`."""
    return path.removeprefix(f"{EVALUATION}.").replace("_", " ").replace(".", " ")


def is_known_in_training(path: str) -> bool:
    """Whether rows of a running run say something of a figure; of the best and last loss the loss so far does."""
    return path.startswith(("validation.", f"{EVALUATION}."))


def find_number(tree: Mapping[str, Any], path: str) -> float | None:
    """The number under a dotted path in nested mappings, as a summary has them; None: there is none of this name.

    NaN and infinities, which stand as texts in a file, come back as numbers. Names of evaluations may hold dots: the
    longest key that is there counts.
    """
    value: Any = tree
    parts = path.split(".")
    while parts:
        if not isinstance(value, Mapping):
            return None
        length = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in value), 0)
        if not length:
            return None
        value, parts = value[".".join(parts[:length])], parts[length:]
    value = as_number(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def find_unknown_figure(
    text: str, where: str, known: Collection[str], evaluations: Collection[str] | None
) -> Iterator[Problem]:
    """The problem of a figure that no run of this configuration has.

    Args:
        text: the value of a key that names it.
        where: the key.
        known: paths that can be given, beside those of evaluations.
        evaluations: names of the run's; None: any may be.
    """
    path, _ = split_figure(text)
    of_any = evaluations is None and path.startswith(f"{EVALUATION}.")
    if path in known or of_any or any(path.startswith(f"{EVALUATION}.{name}.") for name in evaluations or ()):
        return
    names = ["<name>"] if evaluations is None else evaluations
    action = f"give one of {', '.join([*known, *(f'{EVALUATION}.{name}.<figure>' for name in names)])}"
    if path.startswith(f"{EVALUATION}.") and not any(name.startswith(f"{EVALUATION}.") for name in known):
        action += "; sets and tasks of your own are named in evaluation.sets and evaluation.tasks"
    yield Problem("is no figure of this run", where, text, action)


def find_undirected_figure(text: str, where: str) -> Iterator[Problem]:
    """The problem of a figure of which nobody says which values are good."""
    path, direction = split_figure(text)
    if direction is None:
        action = f"write {path}:min or {path}:max"
        yield Problem("does not say which of its values are good ones", where, text, action)
