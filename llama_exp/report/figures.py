"""Which figures of the runs a report shows, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence

from llama_exp.config.check.nearest import suggest
from llama_exp.errors import ConfigError, Problem
from llama_exp.limits.figures import Direction, split_figure
from llama_exp.report.contents import Figure
from llama_exp.results import RunResult, find_figure, list_figure_paths

DEFAULT = "validation.loss"
MOST_FIGURES = 6  # columns of a table that can still be read
_LABELS = {
    "validation.loss": "validation loss (nats per token)",
    "validation.last": "last validation loss (nats per token)",
    "validation.best": "best validation loss (nats per token)",
    "validation.first": "first validation loss (nats per token)",
    "validation.perplexity": "validation perplexity",
    "train_loss": "training loss (nats per token)",
    "train.loss": "training loss (nats per token)",
    "tokens_per_second": "tokens per second",
    "peak_memory_bytes": "peak memory (bytes)",
    "mfu": "model FLOPs utilization",
}
_UNITS = {"loss": " (nats per token)", "bits_per_byte": "", "perplexity": ""}
# Say how a run went, not how good it is.
_OF_THE_MACHINE = ("seconds", "peak_memory_bytes", "tokens_per_second", "mfu")


def choose_figure(runs: Sequence[RunResult], asked: str | None) -> Figure:
    """The figure that ranks.

    Args:
        runs: at least one.
        asked: by the user; None: the objective of all runs, or `validation.loss` where they do not agree.

    Raises:
        ConfigError: none of the runs has it though they have others, or nobody knows which way is good.
    """
    path, direction = split_figure(asked or _find_objective(runs))
    there = dict.fromkeys(name for run in runs for name in list_figure_paths(run))
    good = [name for name in there if split_figure(name)[1] is not None and not _is_of_machine(name)]
    if (asked or good) and all(find_figure(run, path) is None for run in runs):
        action = suggest(path, good, "they have") if good else "give runs that have finished: these have no figures"
        raise ConfigError(Problem("no run has this figure", "--figure", path, action))
    if direction is None:
        action = f"say which way is good: --figure {path}:min or {path}:max"
        raise ConfigError(Problem("it is not known whether less or more of it is good", "--figure", path, action))
    return Figure(path, label_figure(path), direction)


def list_figures(runs: Sequence[RunResult], main: Figure) -> tuple[Figure, ...]:
    """The figure that ranks, then the validation loss and those of evaluations whose good way is known."""
    found = {main.path: main}
    candidates = ["validation.loss", *(name for run in runs for name in list_figure_paths(run) if _is_shown(name))]
    for path in dict.fromkeys(candidates):
        direction = split_figure(path)[1]
        if direction is not None and any(find_figure(run, path) is not None for run in runs):
            found.setdefault(path, Figure(path, label_figure(path), direction))
    return tuple(found.values())[:MOST_FIGURES]


def label_figure(path: str) -> str:
    """For a table or an axis, with the unit: `docs: accuracy`."""
    if path in _LABELS:
        return _LABELS[path]
    section, _, rest = path.partition(".")
    name, _, word = rest.rpartition(".")
    if section == "evaluation" and name:
        return f"{name}: {word.replace('_', ' ')}{_UNITS.get(word, '')}"
    return path.replace("_", " ")


def is_better_value(one: float, other: float, figure: Figure) -> bool:
    """Whether a value of a figure is better than another."""
    return one < other if figure.direction is Direction.minimize else one > other


def _is_shown(path: str) -> bool:
    return path.startswith("evaluation.") and not _is_of_machine(path)


def _is_of_machine(path: str) -> bool:
    return path.rpartition(".")[2] in _OF_THE_MACHINE


def _find_objective(runs: Sequence[RunResult]) -> str:
    objectives = {str(run.config.get("objective_metric", DEFAULT)) for run in runs}
    return objectives.pop() if len(objectives) == 1 else DEFAULT
