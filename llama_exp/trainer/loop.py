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
import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from llama_exp import backend, precision
from llama_exp.dataset.order import Order
from llama_exp.errors import Interrupted, NumericalError, Preempted, Problem, StorageError
from llama_exp.files.metrics_file import perplexity
from llama_exp.limits.trainer import LIMITS
from llama_exp.lora.dora import is_derived
from llama_exp.trainer import state
from llama_exp.trainer.checkpoint import Checkpoint, Checkpoints
from llama_exp.trainer.counters import Progress, Result
from llama_exp.trainer.evaluate import Evaluation
from llama_exp.trainer.metrics import Meter, flops_per_token, gemm_flops_per_second
from llama_exp.trainer.signals import StopSignals
from llama_exp.trainer.step import StepResult, TrainStep

FAILED_SAVES = 3  # in a row, until the run gives up
SMALLEST_LOSS_SCALE = 1.0
_log = logging.getLogger(__name__)


class Trainer:
    """Trains a model's trainable variables and tells observers about it.

    Args:
        model: a `LlamaCausalLM`.
        examples: `train` and `validation` splits (`llama_exp.dataset.Examples`).
        optimizer: a Keras optimizer, with loss scaling around it for float16.
        checkpoints: where states are saved and found.
        observers: name -> object with on_start(facts), on_metrics(row), on_sample(step, prompt, text),
            on_finish(status), state(), restore(state). The name is the key of its state in checkpoints.
        seed: of the data order and the samples.
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
        sample_prompts: continued at each validation.
        sample_tokens: new tokens per sample.
        sample_temperature: 0: greedy.

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
        sample_prompts: Sequence[str],
        sample_tokens: int,
        sample_temperature: float,
    ):
        LIMITS.require(max_steps=max_steps, batch_size=batch_size, accumulation_steps=accumulation_steps)
        LIMITS.require(log_every_steps=log_every_steps, validate_every_steps=validate_every_steps)
        LIMITS.require(checkpoint_every_steps=checkpoint_every_steps, validation_batches=validation_batches)
        LIMITS.require(sample_tokens=sample_tokens, sample_temperature=sample_temperature)
        self._model, self._backbone, self._optimizer = model, model.backbone, optimizer
        self._examples, self._order = examples["train"], Order(len(examples["train"]), seed)
        self._checkpoints, self._observers, self._seed = checkpoints, dict(observers), seed
        self._max_steps, self._batch_size, self._accumulation_steps = max_steps, batch_size, accumulation_steps
        self._log_every_steps, self._validate_every_steps = log_every_steps, validate_every_steps
        self._checkpoint_every_steps = checkpoint_every_steps
        self._sample_prompts, self._sample_tokens = list(sample_prompts), sample_tokens
        self._sample_temperature = sample_temperature
        self._jit, reason = backend.resolve_jit(jit, self._backbone.compute_dtype)
        _log.info("%s XLA: %s", "with" if self._jit else "without", reason)
        options = {"chunk_tokens": chunk_tokens, "jit": self._jit, "fuse": jit != "false"}
        self._train_step = TrainStep(self._backbone, optimizer, **options)
        types = (self._backbone.compute_dtype, backend.device_kind(), optimizer.variables)
        for doubt in precision.doubts(*types):
            _log.warning(doubt)
        self._evaluation = Evaluation(
            self._backbone, examples["validation"], batch_size=batch_size, max_batches=validation_batches, **options
        )
        self._progress = Progress()
        self._base_digest = base_digest
        self._saved_step: int | None = None
        self._failed_saves = 0
        self._restored = False

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint: weights, optimizer, seeds, position in the data, observers.

        Raises:
            InputError: it belongs to another model, optimizer or base; nothing was changed.
        """
        where = str(checkpoint.folder)
        if self._frozen():
            state.check_base(self._digest(), checkpoint.base_digest, where)
        saved = checkpoint.tensors | {"seeds": state.seed_arrays(checkpoint.state["seeds"])}
        state.restore(self._variables() | {"seeds": state.seed_variables(self._backbone)}, saved, where)
        self._progress = Progress(**checkpoint.state["progress"])
        for name, saved in checkpoint.state["observers"].items():
            if name in self._observers:
                self._observers[name].restore(saved)
        for name in sorted({*checkpoint.facts, *self._checkpoints.facts}):
            then, now = checkpoint.facts.get(name), self._checkpoints.facts.get(name)
            if then != now:
                _log.warning("%s is %s, the checkpoint was made with %s: not bitwise the same run", name, now, then)
        self._saved_step, self._restored = checkpoint.step, True
        _log.info("continuing after step %d from %s", checkpoint.step, checkpoint.folder)

    def fit(self) -> Result:
        """Trains until `max_steps`, from the newest checkpoint if there is one (or the one given to `restore`).

        Raises:
            Preempted, Interrupted: a signal arrived; a checkpoint of the last finished step exists.
            NumericalError: a loss or gradient is not finite; that step was neither applied nor saved.
            StorageError: a checkpoint could not be written at the end, or three times in a row.
            InputError: checkpoints exist, but none is valid or fits.
        """
        if not self._restored and (newest := self._checkpoints.newest()) is not None:
            self.restore(newest)
        status = "failed"
        try:
            self._tell("on_start", self._facts())
            with StopSignals() as signals:
                self._loop(signals)
            status = "finished"
        except (Preempted, Interrupted) as error:
            status = type(error).__name__.lower()
            raise
        finally:
            self._tell("on_finish", status)
        return self._progress.result()

    def _loop(self, signals: StopSignals) -> None:
        progress, meter = self._progress, self._meter()
        while True:
            if progress.validated_step != progress.step and self._is_due(self._validate_every_steps, at_start=True):
                self._validate(stop=lambda: signals.received is not None)
            is_last = progress.step >= self._max_steps
            if signals.received is not None and not (is_last and progress.validated_step == progress.step):
                self._save(required=True)
                raise signals.error(progress.step, f"checkpoint {self._saved_step}")
            if self._is_due(self._checkpoint_every_steps):
                self._save(required=is_last)
            if is_last:
                return
            start = time.perf_counter()
            batch = self._batch(progress.step)
            result = self._train_step(batch)
            seconds = time.perf_counter() - start
            self._check(result, batch)
            progress.advance(int(batch["padding_mask"].sum()), seconds, result.applied)
            meter.add(int(batch["padding_mask"].sum()), seconds)
            if progress.step % self._log_every_steps == 0 or progress.step == self._max_steps:
                self._tell_train_row(result, meter)

    def _is_due(self, every: int, at_start: bool = False) -> bool:
        step = self._progress.step
        if step == 0:
            return at_start
        return step % every == 0 or step >= self._max_steps

    def _batch(self, step: int) -> dict[str, np.ndarray]:
        """The arrays (A, B, S) of the step after `step` finished ones."""
        num_rows = self._accumulation_steps * self._batch_size
        rows = self._examples.batch(self._order.indices(step * num_rows, num_rows))
        shape = (self._accumulation_steps, self._batch_size, -1)
        return {key: value.reshape(shape) for key, value in rows.items()}

    def _check(self, result: StepResult, batch) -> None:
        """Ends the run at a step that is not finite, unless loss scaling can still deal with it."""
        if result.finite:
            return
        if math.isfinite(result.loss) and result.loss_scale > SMALLEST_LOSS_SCALE:
            _log.info("step %d: overflow at loss scale %g, skipped", self._progress.step + 1, result.loss_scale)
            return
        step, num_rows = self._progress.step + 1, self._accumulation_steps * self._batch_size
        indices = self._order.indices((step - 1) * num_rows, num_rows)
        found = (
            f"step {step}: loss {result.loss:g}, gradient norm {result.grad_norm:g}, learning rate "
            f"{result.learning_rate:g}, loss scale {result.loss_scale:g}, rows {_shortened(indices)}; "
            f"last good checkpoint: {_step_name(self._saved_step)}"
        )
        raise NumericalError(
            Problem(
                "loss or gradient is not finite; the step was not applied",
                "optimizer.learning_rate",
                found,
                "lower optimizer.learning_rate, lengthen schedule.warmup_steps or set optimizer.global_clipnorm",
            )
        )

    def _validate(self, stop) -> None:
        """Validation row and samples; nothing at all if `stop()` turns true before the loss is known."""
        start = time.perf_counter()
        sums = self._evaluation(stop)
        if sums is None:
            return
        progress = self._progress
        progress.seconds += time.perf_counter() - start
        progress.validated_step = progress.step
        total, count = sums
        if count == 0:
            _log.warning("the validation split has no counted tokens: no validation loss at step %d", progress.step)
        else:
            self._tell_validation_row(total / count)
        for number, prompt in enumerate(self._sample_prompts):
            self._tell("on_sample", progress.step, prompt, self._sample(prompt, number))

    def _tell_validation_row(self, loss: float) -> None:
        progress = self._progress
        if not math.isfinite(loss):
            raise NumericalError(
                Problem(
                    "the validation loss is not finite",
                    "optimizer.learning_rate",
                    f"step {progress.step}: {loss:g}; last good checkpoint: {_step_name(self._saved_step)}",
                    "lower optimizer.learning_rate, or use a wider type than float16 (precision=float32)",
                )
            )
        progress.validation_loss = loss
        if progress.best_validation_loss is None or loss < progress.best_validation_loss:
            progress.best_validation_loss, progress.best_step = loss, progress.step
        row = {"step": progress.step, "split": "validation", "loss": loss, "perplexity": perplexity(loss)}
        self._tell("on_metrics", row | {"tokens": progress.tokens, "seconds": progress.seconds})

    def _tell_train_row(self, result: StepResult, meter: Meter) -> None:
        progress = self._progress
        row = {"step": progress.step, "split": "train", "loss": result.loss, "learning_rate": result.learning_rate}
        row |= {"grad_norm": result.grad_norm, "tokens": progress.tokens}
        self._tell("on_metrics", row | meter.read() | {"seconds": progress.seconds})

    def _sample(self, prompt: str, number: int) -> str:
        """Prompt and continuation; the draws depend on seed, step and prompt number only."""
        tokenizer = self._model.tokenizer
        num_prompt = len(tokenizer.encode(prompt)) + (tokenizer.begin_id is not None)
        return self._model.generate(
            prompt,
            max_length=num_prompt + self._sample_tokens,
            temperature=self._sample_temperature,
            seed=abs(self._seed) + 1009 * self._progress.step + number,
        )

    def _save(self, required: bool) -> None:
        """A checkpoint of this step, unless there is one; a full disk is forgiven twice if not `required`."""
        progress = self._progress
        if self._saved_step == progress.step:
            return
        tensors = {group: state.arrays(variables) for group, variables in self._variables().items()}
        contents = {
            "progress": vars(progress),
            "seeds": state.seed_numbers(self._backbone),
            "data": {"position": progress.step * self._accumulation_steps * self._batch_size},
            "observers": {name: observer.state() for name, observer in self._observers.items()},
        }
        try:
            self._checkpoints.save(progress.step, tensors, contents, self._digest())
        except StorageError as error:
            self._failed_saves += 1
            if required or self._failed_saves >= FAILED_SAVES:
                raise
            _log.warning("%s\n  the run goes on; the next checkpoint will try again", error)
            return
        self._saved_step, self._failed_saves = progress.step, 0

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
            "step": self._progress.step,
            "max_steps": self._max_steps,
            "num_parameters": sum(int(np.prod(v.shape)) for v in self._backbone.weights if not is_derived(v)),
            "num_trainable_parameters": sum(int(np.prod(variable.shape)) for variable in trainable),
            "jit": self._jit,
            "gemm_flops_per_second": gemm_flops_per_second(self._backbone.compute_dtype, self._jit),
        }

    def _tell(self, method: str, *arguments) -> None:
        for observer in self._observers.values():
            getattr(observer, method)(*arguments)


def _step_name(step: int | None) -> str:
    return "none" if step is None else f"step {step}"


def _shortened(indices: np.ndarray) -> str:
    shown = ", ".join(str(index) for index in indices[:8])
    return shown if len(indices) <= 8 else f"{shown}, ... ({len(indices)})"
