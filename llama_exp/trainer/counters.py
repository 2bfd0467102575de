"""What a run counts while it goes, and what it reports at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """What a finished run has reached; losses in nats per token, None if nothing was validated.

    steps: optimizer steps. skipped_steps: of these, float16 overflows without an update. tokens: that were not
    padding. seconds: of all attempts together. figures: of the weights that the model has now, nested as in
    `summary.json`; they are those of `exported_step`. stopped: why it ended before its last step; None: it did not.
    best: `figure`, `step` and `value` of the best weights; None: nobody asked, or no value was a number.
    """

    steps: int
    skipped_steps: int
    tokens: int
    seconds: float
    validation_loss: float | None
    best_validation_loss: float | None
    best_step: int | None
    exported_step: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)
    stopped: str | None = None
    best: Mapping[str, Any] | None = None


@dataclass
class Counters:
    """How far a run is, over all its attempts; part of every checkpoint."""

    step: int = 0  # finished optimizer steps
    validated_step: int = -1  # the last one that was validated
    evaluated_step: int = -1  # the last one that was evaluated
    skipped_steps: int = 0
    tokens: int = 0  # not padding
    seconds: float = 0.0  # in training, validation and evaluations
    validation_loss: float | None = None
    best_validation_loss: float | None = None
    best_step: int | None = None

    @property
    def mark(self) -> tuple[int, int, int]:
        """How far it is: the step, and what was measured last."""
        return (self.step, self.validated_step, self.evaluated_step)

    def advance(self, tokens: int, seconds: float, applied: bool) -> None:
        """Notes one more step."""
        self.step += 1
        self.skipped_steps += not applied
        self.tokens += tokens
        self.seconds += seconds

    def note_validation(self, loss: float) -> None:
        """Notes the validation loss of this step."""
        self.validation_loss = loss
        if self.best_validation_loss is None or loss < self.best_validation_loss:
            self.best_validation_loss, self.best_step = loss, self.step

    def result(self, **end: Any) -> Result:
        """The outcome, should the run end here; `end`: what only its end decides."""
        return Result(
            steps=self.step,
            skipped_steps=self.skipped_steps,
            tokens=self.tokens,
            seconds=self.seconds,
            validation_loss=self.validation_loss,
            best_validation_loss=self.best_validation_loss,
            best_step=self.best_step,
            **end,
        )
