"""One optimizer step of a run: the batch, the update, and what is counted and told of it."""

from __future__ import annotations

import time

from llama_exp.trainer.batches import Batches
from llama_exp.trainer.counters import Counters
from llama_exp.trainer.finite import require_mere_overflow
from llama_exp.trainer.metrics import Meter
from llama_exp.trainer.observers import Observers
from llama_exp.trainer.profile import Profile
from llama_exp.trainer.step import StepResult, TrainStep


class Stepping:
    """Takes steps.

    Args:
        train_step: the update.
        batches: what it is made of.
        profile: of some steps.
        observers: who is told.
    """

    def __init__(self, train_step: TrainStep, batches: Batches, profile: Profile, observers: Observers):
        self._train_step, self._batches = train_step, batches
        self._profile, self._observers = profile, observers
        self._compiled = False

    def step(self, counters: Counters, meter: Meter, saved_step: int | None) -> StepResult:
        """One optimizer step, counted and told.

        Raises:
            NumericalError: loss or gradient is not finite; it was not applied. `saved_step`, of the last checkpoint, is
                told.
        """
        self._observers.tell("on_phase", None if self._compiled else "compiling the step")
        start = time.perf_counter()
        batch = self._batches.arrays(counters.step)
        with self._profile.of_step():
            result = self._train_step(batch)
        seconds, num_tokens = time.perf_counter() - start, int(batch["padding_mask"].sum())
        if not result.finite:
            require_mere_overflow(result, counters.step + 1, self._batches.rows(counters.step), saved_step)
        counters.advance(num_tokens, seconds, result.applied)
        meter.add(num_tokens, seconds)
        self._compiled = True
        self._observers.tell("on_step", counters.step, result.loss, counters.tokens)
        return result

    def tell_row(self, result: StepResult, counters: Counters, meter: Meter) -> None:
        """The row of metrics of a step."""
        row = {"step": counters.step, "split": "train", "loss": result.loss, "learning_rate": result.learning_rate}
        row |= {} if result.z_loss is None else {"z_loss": result.z_loss}
        row |= {"grad_norm": result.grad_norm, "tokens": counters.tokens}
        self._observers.tell("on_metrics", row | meter.read() | {"seconds": counters.seconds})
