"""What the training loop accepts."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator

from llama_exp.errors import Problem
from llama_exp.limits import COUNT, TEXTS, Limits, allow_from, allow_null

# What an observer may be told. A callback has those that it uses.
OBSERVER_METHODS = ("on_start", "on_step", "on_metrics", "on_sample", "on_phase", "on_finish")
STATE_METHODS = ("state", "restore")
OWN_OBSERVERS = ("kept", "metrics", "samples", "logger", "progress")


class Remat(enum.Enum):
    """Which activations the backward pass computes again instead of keeping them."""

    none = "none"
    attention = "attention"  # the attention weights: every head's S x S numbers
    block = "block"  # each decoder block keeps only its input


LIMITS = Limits(
    "trainer",
    {
        "max_steps": COUNT,
        "batch_size": COUNT,
        "accumulation_steps": COUNT,
        "log_every_steps": COUNT,
        "validate_every_steps": COUNT,
        "validation_batches": allow_null(COUNT),
        "checkpoint_every_steps": COUNT,
        "keep_checkpoints": COUNT,
        "sample_prompts": TEXTS,
        "sample_tokens": COUNT,
        "sample_temperature": allow_from(0),
    },
)


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
