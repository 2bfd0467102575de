"""What the training loop accepts."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from llama_exp.errors import Problem
from llama_exp.limits import COUNT, COUNT_OR_ZERO, POSITIVE, TEXTS, Limit, Limits, allow_from, allow_null
from llama_exp.limits.figures import EVALUATION, OF_VALIDATION, split_figure

# What an observer may be told. A callback has those that it uses.
OBSERVER_METHODS = (
    *("bind", "on_start", "on_step", "on_metrics", "on_evaluation", "on_sample", "on_phase", "on_finish"),
)
STATE_METHODS = ("state", "restore")
# Keys that say how much a run may cost instead of how many steps it has.
BUDGETS = ("budget_flops", "budget_tokens")
OWN_OBSERVERS = ("kept", "metrics", "evaluations", "samples", "logger", "progress")


class Remat(enum.Enum):
    """Which activations the backward pass computes again instead of keeping them."""

    none = "none"
    attention = "attention"  # the attention weights: every head's S x S numbers
    block = "block"  # each decoder block keeps only its input


class Export(enum.Enum):
    """Which weights a run leaves at its end."""

    last = "last"
    best = "best"  # by keep_best


class KeepOptimizer(enum.Enum):
    """How long the optimizer's state stays, which a run needs to go on."""

    always = "always"
    until_finished = "until_finished"


def _decides(text: Any) -> bool:
    """Whether a text names a figure that is known while a run trains, and says which of its values are good."""
    if not isinstance(text, str):
        return False
    path, direction = split_figure(text)
    return direction is not None and (path in OF_VALIDATION or path.startswith(f"{EVALUATION}."))


def _best_has_a_figure(section: Mapping[str, Any]) -> Iterator[Problem]:
    """The best weights are the best by something."""
    if section.get("export") is Export.best and section.get("keep_best") is None:
        action = "set trainer.keep_best=validation.loss, or trainer.export=last"
        yield Problem("needs a figure that says which weights are the best", "trainer.export", "best", action)


FIGURE = Limit(
    _decides,
    f"{', '.join(OF_VALIDATION)} or {EVALUATION}.<name>.<figure>, with :min or :max behind a figure of your own",
)
LIMITS = Limits(
    "trainer",
    {
        "max_steps": COUNT,
        **dict.fromkeys(BUDGETS, allow_null(POSITIVE)),
        "batch_size": COUNT,
        "accumulation_steps": COUNT,
        "log_every_steps": COUNT,
        "validate_every_steps": COUNT,
        "validation_batches": allow_null(COUNT),
        "checkpoint_every_steps": COUNT,
        "keep_checkpoints": COUNT,
        "keep_best": allow_null(FIGURE),
        "stop_early": allow_null(FIGURE),
        "patience": COUNT,
        "min_delta": allow_from(0),
        "overfit_below": allow_null(POSITIVE),
        "profile_steps": COUNT_OR_ZERO,
        "sample_prompts": TEXTS,
        "sample_tokens": COUNT,
        "sample_temperature": allow_from(0),
    },
    (_best_has_a_figure,),
)


def is_own_observer(name: str) -> bool:
    """Whether an observer of this name is one of the package's, and no callback."""
    return name.partition(".")[0] in OWN_OBSERVERS


def observer_problems(methods: Collection[str], where: str, target: str) -> Iterator[Problem]:
    """The problems of a callback with these methods: it has one at least, and none that nobody calls."""
    known = ", ".join((*OBSERVER_METHODS, *STATE_METHODS))
    unknown = sorted(name for name in methods if name.startswith("on_") and name not in OBSERVER_METHODS)
    if unknown:
        action = f"rename or remove them; a callback has some of: {known}"
        yield Problem("has methods that nobody calls", where, f"{target} with {', '.join(unknown)}", action)
    elif not set(methods) & set(OBSERVER_METHODS):
        yield Problem("is no callback", where, target, f"give it at least one of: {known}")
    present = [name for name in STATE_METHODS if name in methods]
    if len(present) == 1:
        what = "state and restore come together: what one keeps in a checkpoint the other takes back"
        yield Problem(what, where, f"{target} with {present[0]} alone", "add the other one, or remove it")
