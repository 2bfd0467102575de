"""The training loop.

    restore the newest valid checkpoint, if there is one
    loop
        measure what is due after this step: validation loss -> metrics row; sample text; evaluations  [step 0 first]
        by its figures: are these weights the best so far? is it time to stop?
        if a signal asked to stop: save a checkpoint, leave
        if a checkpoint is due, or the weights are the best: save it                   [the last step always]
        if this is the last step: leave
        step += 1
        batch = the examples at positions (step - 1) * A * B ... of the order f(seed, epoch)
        one optimizer step; a loss or gradient that is not finite ends the run before it is applied
        if a row is due: train metrics row
    if the best weights are wanted: take them from their checkpoint, and measure what is not known of them

The last step is max_steps, or an earlier one at which early stopping or a callback ended the run. Everything that
decides the future is in the checkpoint or follows from the step number, so a run that was cut and continued gives the
same bits as one that was not (same backend, threads and machine).

Shape letters: A micro-batches, B batch, S positions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from llama_exp import backend, precision, signals
from llama_exp.console.logs import FOR_THE_RECORD
from llama_exp.errors import Interrupted, Preempted, Pruned
from llama_exp.files.process import ALONE, Process
from llama_exp.limits.trainer import LIMITS, Export
from llama_exp.trainer.batches import Batches
from llama_exp.trainer.checkpoint import Checkpoint, Checkpoints
from llama_exp.trainer.contents import restore_part
from llama_exp.trainer.counters import Counters, Result
from llama_exp.trainer.ending import RunHandle
from llama_exp.trainer.evaluate import Evaluation
from llama_exp.trainer.leaving import take_weights
from llama_exp.trainer.measuring import Evaluations, Measuring
from llama_exp.trainer.metrics import Meter, count_parameters, flops_per_token, gemm_flops_per_second
from llama_exp.trainer.observers import Observers
from llama_exp.trainer.overfit import judge
from llama_exp.trainer.profile import NO_PROFILE, Profile
from llama_exp.trainer.samples import SampleWriter
from llama_exp.trainer.saving import Saving
from llama_exp.trainer.selection import Measured
from llama_exp.trainer.step import TrainStep
from llama_exp.trainer.stepping import Stepping
from llama_exp.trainer.verdicts import Verdicts

STOPPING = "%s: stopping after this step with a checkpoint; again: at once"
OVERFIT = "trainer.overfit_below"
NOTHING_SAVED = (-1, -1, -1)
_log = logging.getLogger(__name__)


class Trainer:
    """Trains a model's trainable variables and tells observers about it.

    Args:
        model: a `LlamaCausalLM`.
        examples: `train` and `validation` splits (`llama_exp.dataset.Examples`).
        optimizer: a Keras optimizer, with loss scaling around it for float16.
        checkpoints: where states are saved and found.
        observers: by name, see `Observers`; the name is the key of its state in checkpoints.
        evaluations: further ones than the validation split's; None: there are none.
        profile: of some steps.
        seed: of the data order and the samples.
        process: which of the run's processes this is; all compute the same, the writer's observers are told.
        base_digest: of the frozen weights, where it is known; None: computed for the first checkpoint.
        jit: auto, true or false.
        chunk_tokens, z_loss: see `llama_exp.objective`.
        max_steps: optimizer steps.
        batch_size: B, rows per micro-batch.
        accumulation_steps: A.
        log_every_steps: a train row each.
        validate_every_steps: validation and samples each, besides the first and the last step.
        validation_batches: of batch_size rows, at most; None: the whole split.
        checkpoint_every_steps: a checkpoint each, besides the last step.
        keep_best: a figure: the checkpoint of the weights with its best value stays; None: none does.
        export: which weights the model has at the end: `last`, or `best` by `keep_best`.
        stop_early: a figure: the run ends once it has not improved for `patience` measurements by more than
            `min_delta`; None: it never does.
        overfit_below: a loss: every step trains on the rows of the first, until it is below; None: as usual.
        sample_prompts: continued at each validation; None: beginnings of validation documents.
        sample_tokens: new tokens per sample.
        sample_temperature: 0: greedy.
        sample_at_start: whether also before the first step; a model of random weights has nothing to show.

    Raises:
        ValueError: an impossible number.
    """

    def __init__(
        self,
        model,
        examples: Mapping,
        optimizer,
        *,
        checkpoints: Checkpoints,
        observers: Mapping,
        seed: int,
        process: Process = ALONE,
        evaluations: Evaluations | None = None,
        profile: Profile = NO_PROFILE,
        base_digest: str | None = None,
        jit: str,
        chunk_tokens: int,
        z_loss: float = 0.0,
        max_steps: int,
        batch_size: int,
        accumulation_steps: int,
        log_every_steps: int,
        validate_every_steps: int,
        validation_batches: int | None,
        checkpoint_every_steps: int,
        keep_best: str | None = None,
        export: str = Export.last.value,
        stop_early: str | None = None,
        patience: int = 1,
        min_delta: float = 0.0,
        overfit_below: float | None = None,
        sample_prompts: Sequence[str] | None,
        sample_tokens: int,
        sample_temperature: float,
        sample_at_start: bool = True,
    ):
        LIMITS.require(max_steps=max_steps, batch_size=batch_size, accumulation_steps=accumulation_steps)
        LIMITS.require(log_every_steps=log_every_steps, validate_every_steps=validate_every_steps)
        LIMITS.require(checkpoint_every_steps=checkpoint_every_steps, validation_batches=validation_batches)
        LIMITS.require(sample_tokens=sample_tokens, sample_temperature=sample_temperature)
        LIMITS.require(keep_best=keep_best, export=Export(export), overfit_below=overfit_below)
        LIMITS.require(stop_early=stop_early, patience=patience, min_delta=min_delta)
        self._backbone, self._process, self._profile = model.backbone, process, profile
        self._batches = Batches(examples["train"], seed, batch_size, accumulation_steps, overfit_below is not None)
        self._checkpoints, self._observers = checkpoints, Observers(observers, process)
        self._max_steps, self._log_every_steps = max_steps, log_every_steps
        self._validate_every_steps, self._checkpoint_every_steps = validate_every_steps, checkpoint_every_steps
        self._export, self._overfit_below = Export(export), overfit_below
        self._verdicts = Verdicts(keep_best, stop_early, patience, min_delta)
        self._jit = _choose_jit(jit, self._backbone, optimizer)
        options: dict[str, Any] = {"chunk_tokens": chunk_tokens, "jit": self._jit, "fuse": jit != "false"}
        train_step = TrainStep(self._backbone, optimizer, **options, z_loss=z_loss)
        self._stepping = Stepping(train_step, self._batches, profile, self._observers)
        evaluation = Evaluation(
            self._backbone, examples["validation"], batch_size=batch_size, max_batches=validation_batches, **options
        )
        options = {"num_tokens": sample_tokens, "temperature": sample_temperature, "seed": seed}
        writer = SampleWriter(model, examples["validation"], prompts=sample_prompts, **options)
        self._measuring = Measuring(evaluation, evaluations, writer, self._observers, sample_at_start)
        self._saving = Saving(self._backbone, optimizer, checkpoints, base_digest)
        self._counters, self._saved_mark, self._restored = Counters(), NOTHING_SAVED, False
        self._observers.bind(lambda name: RunHandle(name, self, model, self._verdicts.ending))

    @property
    def step(self) -> int:
        """Finished optimizer steps."""
        return self._counters.step

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint: weights, optimizer, seeds, position in the data, verdicts, observers.

        Raises:
            InputError: it belongs to another model, optimizer or base, is of another form, or its optimizer is gone;
                no variable was changed.
        """
        contents = self._saving.restore(checkpoint)
        self._counters = contents.counters
        self._saved_mark = contents.counters.mark
        askers = self._observers.names | ({OVERFIT} if self._overfit_below is not None else set())
        self._verdicts.restore(checkpoint, askers)
        if "measured" in checkpoint.state:
            restore_part(checkpoint, "measured", checkpoint.state["measured"], self._measuring.restore)
        needed = self._verdicts.needed_step(checkpoint.step)
        if needed is not None and not self._checkpoints.holds(needed):
            self._verdicts.forget_best()
        self._observers.restore(contents.observers, checkpoint)
        self._saving.tell_differences(checkpoint)
        self._restored = True
        _log.info("continuing after step %d from %s", checkpoint.step, checkpoint.folder)

    def fit(self) -> Result:
        """Trains to the last step, from the newest checkpoint if there is one (or the one given to `restore`).

        Raises:
            Preempted, Interrupted, Pruned: a signal arrived; a checkpoint of the last finished step exists.
            NumericalError: a loss or gradient is not finite; that step was neither applied nor saved.
            StorageError: a checkpoint could not be written at the end, or three times in a row.
            InputError: checkpoints exist, but none is valid or fits; or the best one is gone at the end.
            CallbackError: a callback raised an exception.
        """
        if not self._restored and (newest := self._checkpoints.newest()) is not None:
            self.restore(newest)
        status = "failed"
        with signals.noted(STOPPING if self._process.is_writer else None):
            try:
                self._observers.tell("on_start", self._facts())
                self._loop()
                exported = self._take_weights()
                status = "finished"
            except (Preempted, Interrupted, Pruned) as error:
                status = type(error).__name__.lower()
                raise
            finally:
                self._profile.close()
                self._observers.tell("on_finish", status)
        return self._result(exported)

    def _loop(self) -> None:
        counters, meter = self._counters, self._meter()
        while True:
            self._measure()
            is_last = self._is_last()
            stop = signals.received()
            if stop is not None and not (is_last and not self._is_anything_due()):
                self._save(required=True)
                self._leave(stop)
            if self._is_due(self._checkpoint_every_steps) or self._verdicts.best.is_of(counters.step):
                self._save(required=is_last)
            if is_last:
                return
            result = self._stepping.step(counters, meter, self._saving.saved_step)
            self._judge_overfit(result.loss)
            if counters.step % self._log_every_steps == 0 or self._is_last():
                self._stepping.tell_row(result, counters, meter)

    def _measure(self) -> None:
        """Validation, evaluations and what follows from them; whole, once they have made this step the last one."""
        counters, measuring = self._counters, self._measuring
        was_last = self._is_last()
        if self._is_validation_due():
            measuring.validate(counters, self._saving.saved_step, _is_signalled)
        if not _is_signalled() and measuring.evaluates(counters, was_last):
            measuring.evaluate(counters, _is_signalled)
        if measuring.measured.step == counters.step:
            self._verdicts.note(measuring.measured)
        if self._is_last() and not was_last:
            _log.info("stopping after step %d: %s", counters.step, self._verdicts.stopped)
            self._measure()

    def _judge_overfit(self, loss: float) -> None:
        counters = self._counters
        if self._overfit_below is not None:
            is_last = counters.step == self._max_steps
            if (learned := judge(loss, self._overfit_below, counters.step, is_last)) is not None:
                self._verdicts.ending.request(OVERFIT, learned)

    def _is_last(self) -> bool:
        return self._counters.step >= self._max_steps or self._verdicts.stopped is not None

    def _is_due(self, every: int, at_start: bool = False) -> bool:
        step = self._counters.step
        if self._is_last():
            return True
        return at_start if step == 0 else step % every == 0

    def _is_validation_due(self) -> bool:
        counters = self._counters
        return counters.validated_step != counters.step and self._is_due(self._validate_every_steps, at_start=True)

    def _is_anything_due(self) -> bool:
        return self._is_validation_due() or self._measuring.evaluates(self._counters, self._is_last())

    def _save(self, required: bool) -> None:
        """A checkpoint of this step, unless there is one that knows as much of it."""
        counters = self._counters
        if self._saved_mark == counters.mark:
            return
        self._observers.tell("on_phase", "saving")
        contents = {
            "progress": vars(counters),
            "data": {"position": counters.step * self._batches.rows_per_step},
            "observers": self._observers.state(),
            "measured": self._measuring.measured.state(),
            **self._verdicts.state(),
        }
        needed = self._verdicts.needed_step(counters.step)
        if self._saving.save(counters.step, contents, needed, required):
            self._saved_mark = counters.mark
        else:
            self._verdicts.best.give_up(counters.step)

    def _leave(self, stop: signals.signal.Signals) -> NoReturn:
        """Raises what a signal ends the run with."""
        raise signals.Stopped(stop).told(f"step {self._counters.step}, checkpoint {self._saving.saved_step}")

    def _take_weights(self) -> Measured:
        """Those that the run leaves; raises as a signal asks, and `InputError` as `take_weights`."""
        best, step = self._verdicts.best, self._counters.step
        taken = take_weights(self._export, best, step, self._measuring, self._saving, _is_signalled)
        if taken is None:
            stop = signals.received()
            assert stop is not None
            self._leave(stop)
        return taken

    def _result(self, exported: Measured) -> Result:
        end = {"exported_step": exported.step, "figures": exported.figures, "stopped": self._verdicts.stopped}
        end["best"] = self._verdicts.describe_best()
        return self._counters.result(**end)

    def _meter(self) -> Meter:
        roof = gemm_flops_per_second(self._backbone.compute_dtype, self._jit)
        return Meter(flops_per_token(self._backbone, self._batches.row_length()), roof)

    def _facts(self) -> dict:
        return {
            "step": self._counters.step,
            "tokens": self._counters.tokens,
            "max_steps": self._max_steps,
            **count_parameters(self._backbone),
            "jit": self._jit,
            "gemm_flops_per_second": gemm_flops_per_second(self._backbone.compute_dtype, self._jit),
        }


def _choose_jit(jit: str, backbone, optimizer) -> bool:
    """Whether XLA compiles; says why, and what is doubtful about the types."""
    is_jit, reason = backend.resolve_jit(jit, backbone.compute_dtype)
    _log.info("%s XLA: %s", "with" if is_jit else "without", reason, extra=FOR_THE_RECORD)
    for doubt in precision.doubts(backbone.compute_dtype, backend.device_kind(), optimizer.variables):
        _log.warning(doubt)
    return is_jit


def _is_signalled() -> bool:
    return signals.received() is not None
