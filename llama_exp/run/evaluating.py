"""The evaluations of a run, from its config to what the trainer asks."""

from __future__ import annotations

from pathlib import Path

from llama_exp.config.identity import to_dict
from llama_exp.config.schema import Config
from llama_exp.evaluation.build import Parts, Use, build, open_parts
from llama_exp.evaluation.evaluations import Evaluations


def open_evaluations(config: Config) -> Parts:
    """Sets that are there and tasks with their items: what is missing or wrong is told before anything is built."""
    return open_parts(config.evaluation, config.trusted_modules, str(Path(config.runtime.cache_dir).expanduser()))


def build_evaluations(
    config: Config, parts: Parts, model, folder: Path | None, train=None, context_length: int | None = None
) -> Evaluations:
    """What the trainer asks whenever it is due.

    Args:
        config: of the run.
        parts: of `open_evaluations`.
        model: a `LlamaCausalLM` with the run's tokenizer.
        folder: of the run; None: this process is not its writer.
        train: the training rows; None: nobody looks for items in them.
        context_length: tokens that the model was made for; None: not known.
    """
    use = Use(
        batch_size=config.trainer.batch_size,
        loss_on=config.objective.loss_on.value,
        jit=to_dict(config.runtime.jit),
        cache_dir=str(Path(config.runtime.cache_dir).expanduser()),
        folder=folder,
        context_length=context_length,
        train=train,
    )
    return build(parts, model, use)
