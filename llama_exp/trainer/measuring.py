"""What is measured beside the steps: validation loss, samples, evaluations; each once for a step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from llama_exp.files.metrics_file import perplexity
from llama_exp.trainer.counters import Counters
from llama_exp.trainer.evaluate import Evaluation
from llama_exp.trainer.finite import require_finite_validation
from llama_exp.trainer.observers import Observers
from llama_exp.trainer.samples import SampleWriter
from llama_exp.trainer.selection import Measured

_log = logging.getLogger(__name__)
Stop = Callable[[], bool]


class Evaluations(Protocol):
    """What the trainer asks of a run's evaluations, which look at the model as it is."""

    def is_due(self, step: int, is_last: bool) -> bool:
        """Whether they are wanted after this step."""

    def run(self, step: int, stop: Stop, tell_phase: Callable[[str], None]) -> Sequence[dict[str, Any]] | None:
        """A row for each; None if `stop()` turned true in between. `tell_phase` says what is going on."""


class Measuring:
    """Measures the model, and tells observers.

    Args:
        evaluation: of the validation split.
        evaluations: further ones; None: there are none.
        write_samples: of the model.
        observers: who is told.
        sample_at_start: whether also before the first step.

    Attributes:
        measured: what is known of the present weights.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        evaluations: Evaluations | None,
        write_samples: SampleWriter,
        observers: Observers,
        sample_at_start: bool,
    ):
        self._evaluation, self._evaluations, self._write_samples = evaluation, evaluations, write_samples
        self._observers, self._sample_at_start = observers, sample_at_start
        self.measured = Measured()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what `measured.state` gave; raises as `Measured.from_state`."""
        self.measured = Measured.from_state(state)

    def evaluates(self, counters: Counters, is_last: bool) -> bool:
        """Whether evaluations of this step are due and not done."""
        if self._evaluations is None or counters.evaluated_step == counters.step:
            return False
        return self._evaluations.is_due(counters.step, is_last)

    def validate(self, counters: Counters, saved_step: int | None, stop: Stop) -> None:
        """Validation row and samples; nothing at all if `stop()` turns true before the loss is known.

        Raises:
            NumericalError: the loss is not finite; `saved_step`, of the last checkpoint, is told.
        """
        self._observers.tell("on_phase", "validating" if counters.step else "compiling and validating")
        start = time.perf_counter()
        sums = self._evaluation(stop)
        if sums is None:
            return
        counters.seconds += time.perf_counter() - start
        counters.validated_step = counters.step
        total, count = sums
        if count == 0:
            _log.warning("the validation split has no counted tokens: no validation loss at step %d", counters.step)
        else:
            self._tell_validation_row(total / count, counters, saved_step)
        if counters.step == 0 and not self._sample_at_start:
            return
        self._observers.tell("on_phase", "sampling")
        for prompt, text in self._write_samples(counters.step):
            self._observers.tell("on_sample", counters.step, prompt, text)

    def evaluate(self, counters: Counters, stop: Stop) -> None:
        """Rows of all evaluations; none at all if `stop()` turns true in between."""
        start = time.perf_counter()
        if self._evaluate(self.measured, counters.step, stop):
            counters.evaluated_step = counters.step
            counters.seconds += time.perf_counter() - start

    def complete(self, measured: Measured, stop: Stop) -> bool:
        """Measures what is not known yet of weights that the model has got again; whether it came to an end.

        Their validation gives no row of metrics, whose steps only rise.
        """
        step = measured.step
        if "validation" not in measured.figures:
            self._observers.tell("on_phase", "validating")
            sums = self._evaluation(stop)
            if sums is None:
                return False
            if sums[1]:
                measured.add_validation(step, sums[0] / sums[1], perplexity(sums[0] / sums[1]))
        if "evaluation" in measured.figures or self._evaluations is None or not self._evaluations.is_due(step, True):
            return True
        return self._evaluate(measured, step, stop)

    def _evaluate(self, measured: Measured, step: int, stop: Stop) -> bool:
        assert self._evaluations is not None
        self._observers.tell("on_phase", "evaluating")
        rows = self._evaluations.run(step, stop, lambda phase: self._observers.tell("on_phase", phase))
        for row in rows or ():
            measured.add_evaluation(step, row)
            self._observers.tell("on_evaluation", row)
        return rows is not None

    def _tell_validation_row(self, loss: float, counters: Counters, saved_step: int | None) -> None:
        require_finite_validation(loss, counters.step, saved_step)
        counters.note_validation(loss)
        self.measured.add_validation(counters.step, loss, perplexity(loss))
        row = {"step": counters.step, "split": "validation", "loss": loss, "perplexity": perplexity(loss)}
        self._observers.tell("on_metrics", row | {"tokens": counters.tokens, "seconds": counters.seconds})
