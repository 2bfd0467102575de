"""The training loop.

    restore the newest valid checkpoint, if there is one
    loop
        if validation is due after this step: validation loss -> metrics row; sample text       [step 0 first]
        if a checkpoint is due: save it                                                        [the last step always]
        if a signal asked to stop: save a checkpoint, leave
        if step == max_steps: leave
        step += 1
        batch = the examples at positions (step - 1) * A * B ... of the order f(seed, epoch)
        one optimizer step; a loss or gradient that is not finite ends the run before it is applied
        if a row is due: train metrics row

Everything that decides the future is in the checkpoint or follows from the step number, so a run that was cut and
continued gives the same bits as one that was not (same backend, threads and machine).

Shape letters: A micro-batches, B batch, S positions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llama_exp import backend, precision, signals
from llama_exp.console.logs import FOR_THE_RECORD
from llama_exp.dataset.order import Order
from llama_exp.errors import Interrupted, Preempted, Pruned, StorageError
from llama_exp.files.metrics_file import perplexity
from llama_exp.files.process import ALONE, Process
from llama_exp.limits.trainer import LIMITS
from llama_exp.lora.dora import is_derived
from llama_exp.trainer import state
from llama_exp.trainer.checkpoint import Checkpoint, Checkpoints
from llama_exp.trainer.contents import read_contents
from llama_exp.trainer.counters import Counters, Result
from llama_exp.trainer.evaluate import Evaluation
from llama_exp.trainer.finite import require_finite_validation, require_mere_overflow
from llama_exp.trainer.metrics import Meter, flops_per_token, gemm_flops_per_second
from llama_exp.trainer.observers import Observers
from llama_exp.trainer.samples import SampleWriter
from llama_exp.trainer.step import StepResult, TrainStep

FAILED_SAVES = 3  # in a row, until the run gives up
STOPPING = "%s: stopping after this step with a checkpoint; again: at once"
_log = logging.getLogger(__name__)


class Trainer:
    """Trains a model's trainable variables and tells observers about it.

    Args:
        model: a `LlamaCausalLM`.
        examples: `train` and `validation` splits (`llama_exp.dataset.Examples`).
        optimizer: a Keras optimizer, with loss scaling around it for float16.
        checkpoints: where states are saved and found.
        observers: by name, see `Observers`; the name is the key of its state in checkpoints.
        seed: of the data order and the samples.
        process: which of the run's processes this is; all compute the same, the writer's observers are told.
        base_digest: of the frozen weights, where it is known; None: computed for the first checkpoint.
        jit: auto, true or false.
        chunk_tokens: see `llama_exp.objective`.
        max_steps: optimizer steps.
        batch_size: B, rows per micro-batch.
        accumulation_steps: A.
        log_every_steps: a train row each.
        validate_every_steps: validation and samples each, besides the first and the last step.
        validation_batches: of batch_size rows, at most; None: the whole split.
        checkpoint_every_steps: a checkpoint each, besides the last step.
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
        base_digest: str | None = None,
        jit: str,
        chunk_tokens: int,
        max_steps: int,
        batch_size: int,
        accumulation_steps: int,
        log_every_steps: int,
        validate_every_steps: int,
        validation_batches: int | None,
        checkpoint_every_steps: int,
        sample_prompts: Sequence[str] | None,
        sample_tokens: int,
        sample_temperature: float,
        sample_at_start: bool = True,
    ):
        LIMITS.require(max_steps=max_steps, batch_size=batch_size, accumulation_steps=accumulation_steps)
        LIMITS.require(log_every_steps=log_every_steps, validate_every_steps=validate_every_steps)
        LIMITS.require(checkpoint_every_steps=checkpoint_every_steps, validation_batches=validation_batches)
        LIMITS.require(sample_tokens=sample_tokens, sample_temperature=sample_temperature)
        self._model, self._backbone, self._optimizer = model, model.backbone, optimizer
        self._examples, self._order = examples["train"], Order(len(examples["train"]), seed)
        self._checkpoints, self._seed, self._process = checkpoints, seed, process
        self._observers = Observers(observers, process)
        self._max_steps, self._batch_size, self._accumulation_steps = max_steps, batch_size, accumulation_steps
        self._log_every_steps, self._validate_every_steps = log_every_steps, validate_every_steps
        self._checkpoint_every_steps = checkpoint_every_steps
        options: dict[str, Any] = {"num_tokens": sample_tokens, "temperature": sample_temperature, "seed": seed}
        self._write_samples = SampleWriter(model, examples["validation"], prompts=sample_prompts, **options)
        self._sample_at_start = sample_at_start
        self._jit, reason = backend.resolve_jit(jit, self._backbone.compute_dtype)
        _log.info("%s XLA: %s", "with" if self._jit else "without", reason, extra=FOR_THE_RECORD)
        options = {"chunk_tokens": chunk_tokens, "jit": self._jit, "fuse": jit != "false"}
        self._train_step = TrainStep(self._backbone, optimizer, **options)
        types = (self._backbone.compute_dtype, backend.device_kind(), optimizer.variables)
        for doubt in precision.doubts(*types):
            _log.warning(doubt)
        self._evaluation = Evaluation(
            self._backbone, examples["validation"], batch_size=batch_size, max_batches=validation_batches, **options
        )
        self._counters = Counters()
        self._base_digest = base_digest
        self._saved_step: int | None = None
        self._failed_saves = 0
        self._restored = self._compiled = False

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint: weights, optimizer, seeds, position in the data, observers.

        Raises:
            InputError: it belongs to another model, optimizer or base, or is of another form; no variable was changed.
        """
        where, contents = str(checkpoint.folder), read_contents(checkpoint)
        if self._frozen():
            state.check_base(self._digest(), checkpoint.base_digest, where)
        saved = checkpoint.tensors | {"seeds": {str(number): seed for number, seed in enumerate(contents.seeds)}}
        state.restore(self._variables() | {"seeds": state.seed_variables(self._backbone)}, saved, where)
        self._counters = contents.counters
        self._observers.restore(contents.observers, checkpoint)
        for name in sorted({*checkpoint.facts, *self._checkpoints.facts}):
            then, now = checkpoint.facts.get(name), self._checkpoints.facts.get(name)
            if then != now:
                _log.warning("%s is %s, the checkpoint was made with %s: not bitwise the same run", name, now, then)
        self._saved_step, self._restored = checkpoint.step, True
        _log.info("continuing after step %d from %s", checkpoint.step, checkpoint.folder)

    def fit(self) -> Result:
        """Trains until `max_steps`, from the newest checkpoint if there is one (or the one given to `restore`).

        Raises:
            Preempted, Interrupted, Pruned: a signal arrived; a checkpoint of the last finished step exists.
            NumericalError: a loss or gradient is not finite; that step was neither applied nor saved.
            StorageError: a checkpoint could not be written at the end, or three times in a row.
            InputError: checkpoints exist, but none is valid or fits.
        """
        if not self._restored and (newest := self._checkpoints.newest()) is not None:
            self.restore(newest)
        status = "failed"
        with signals.noted(STOPPING if self._process.is_writer else None):
            try:
                self._observers.tell("on_start", self._facts())
                self._loop()
                status = "finished"
            except (Preempted, Interrupted, Pruned) as error:
                status = type(error).__name__.lower()
                raise
            finally:
                self._observers.tell("on_finish", status)
        return self._counters.result()

    def _loop(self) -> None:
        counters, meter = self._counters, self._meter()
        while True:
            if counters.validated_step != counters.step and self._is_due(self._validate_every_steps, at_start=True):
                self._validate(stop=lambda: signals.received() is not None)
            is_last = counters.step >= self._max_steps
            stop = signals.received()
            if stop is not None and not (is_last and counters.validated_step == counters.step):
                self._save(required=True)
                raise signals.Stopped(stop).told(f"step {counters.step}, checkpoint {self._saved_step}")
            if self._is_due(self._checkpoint_every_steps):
                self._save(required=is_last)
            if is_last:
                return
            result = self._step(meter)
            if counters.step % self._log_every_steps == 0 or counters.step == self._max_steps:
                self._tell_train_row(result, meter)

    def _step(self, meter: Meter) -> StepResult:
        """One optimizer step, counted and told."""
        counters = self._counters
        self._observers.tell("on_phase", None if self._compiled else "compiling the step")
        start = time.perf_counter()
        batch = self._batch(counters.step)
        result = self._train_step(batch)
        seconds, num_tokens = time.perf_counter() - start, int(batch["padding_mask"].sum())
        if not result.finite:
            require_mere_overflow(result, counters.step + 1, self._rows(counters.step), self._saved_step)
        counters.advance(num_tokens, seconds, result.applied)
        meter.add(num_tokens, seconds)
        self._compiled = True
        self._observers.tell("on_step", counters.step, result.loss, counters.tokens)
        return result

    def _is_due(self, every: int, at_start: bool = False) -> bool:
        step = self._counters.step
        if step == 0:
            return at_start
        return step % every == 0 or step >= self._max_steps

    def _batch(self, step: int) -> dict[str, np.ndarray]:
        """The arrays (A, B, S) of the step after `step` finished ones."""
        shape = (self._accumulation_steps, self._batch_size, -1)
        return {key: value.reshape(shape) for key, value in self._examples.batch(self._rows(step)).items()}

    def _rows(self, step: int) -> np.ndarray:
        """Indices of the examples in the step after `step` finished ones, (A * B,)."""
        num_rows = self._accumulation_steps * self._batch_size
        return self._order.indices(step * num_rows, num_rows)

    def _validate(self, stop) -> None:
        """Validation row and samples; nothing at all if `stop()` turns true before the loss is known."""
        self._observers.tell("on_phase", "validating" if self._counters.step else "compiling and validating")
        start = time.perf_counter()
        sums = self._evaluation(stop)
        if sums is None:
            return
        counters = self._counters
        counters.seconds += time.perf_counter() - start
        counters.validated_step = counters.step
        total, count = sums
        if count == 0:
            _log.warning("the validation split has no counted tokens: no validation loss at step %d", counters.step)
        else:
            self._tell_validation_row(total / count)
        if counters.step == 0 and not self._sample_at_start:
            return
        self._observers.tell("on_phase", "sampling")
        for prompt, text in self._write_samples(counters.step):
            self._observers.tell("on_sample", counters.step, prompt, text)

    def _tell_validation_row(self, loss: float) -> None:
        counters = self._counters
        require_finite_validation(loss, counters.step, self._saved_step)
        counters.validation_loss = loss
        if counters.best_validation_loss is None or loss < counters.best_validation_loss:
            counters.best_validation_loss, counters.best_step = loss, counters.step
        row = {"step": counters.step, "split": "validation", "loss": loss, "perplexity": perplexity(loss)}
        self._observers.tell("on_metrics", row | {"tokens": counters.tokens, "seconds": counters.seconds})

    def _tell_train_row(self, result: StepResult, meter: Meter) -> None:
        counters = self._counters
        row = {"step": counters.step, "split": "train", "loss": result.loss, "learning_rate": result.learning_rate}
        row |= {"grad_norm": result.grad_norm, "tokens": counters.tokens}
        self._observers.tell("on_metrics", row | meter.read() | {"seconds": counters.seconds})

    def _save(self, required: bool) -> None:
        """A checkpoint of this step, unless there is one; a full disk is forgiven twice if not `required`."""
        counters = self._counters
        if self._saved_step == counters.step:
            return
        self._observers.tell("on_phase", "saving")
        tensors = {group: state.arrays(variables) for group, variables in self._variables().items()}
        contents = {
            "progress": vars(counters),
            "seeds": state.seed_numbers(self._backbone),
            "data": {"position": counters.step * self._accumulation_steps * self._batch_size},
            "observers": self._observers.state(),
        }
        try:
            self._checkpoints.save(counters.step, tensors, contents, self._digest())
        except StorageError as error:
            self._failed_saves += 1
            if required or self._failed_saves >= FAILED_SAVES:
                raise
            _log.warning("%s\n  the run goes on; the next checkpoint will try again", error)
            return
        self._saved_step, self._failed_saves = counters.step, 0

    def _variables(self) -> dict[str, dict]:
        return {
            "trainable": state.trainable_variables(self._backbone),
            "optimizer": state.optimizer_variables(self._optimizer),
        }

    def _digest(self) -> str:
        if self._base_digest is None:
            self._base_digest = state.frozen_digest(self._backbone)
        return self._base_digest

    def _frozen(self) -> bool:
        return any(not variable.trainable for variable in self._backbone.weights)

    def _meter(self) -> Meter:
        length = self._examples.batch(np.arange(1))["token_ids"].shape[1]
        roof = gemm_flops_per_second(self._backbone.compute_dtype, self._jit)
        return Meter(flops_per_token(self._backbone, length), roof)

    def _facts(self) -> dict:
        trainable = self._backbone.trainable_variables
        return {
            "step": self._counters.step,
            "tokens": self._counters.tokens,
            "max_steps": self._max_steps,
            "num_parameters": sum(int(np.prod(v.shape)) for v in self._backbone.weights if not is_derived(v)),
            "num_trainable_parameters": sum(int(np.prod(variable.shape)) for variable in trainable),
            "jit": self._jit,
            "gemm_flops_per_second": gemm_flops_per_second(self._backbone.compute_dtype, self._jit),
        }
