"""What is verified: the model and some rows of a user's own configuration, as a run would build them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp import runtime
from llama_exp.config.check import check_arguments
from llama_exp.config.check.contracts import find_added_arguments, list_targets
from llama_exp.config.identity import to_dict
from llama_exp.config.instantiate import check_targets, instantiate
from llama_exp.config.schema import Config
from llama_exp.errors import ConfigError, Problem
from llama_exp.run.building import build_data, build_model, check_preset, resolve_preset

MOST_ROWS = 4
_FILL_SCALE = 0.02


@dataclass(frozen=True)
class Subject:
    """A model and rows to train it on.

    config: without dropout. model: a `LlamaCausalLM`. rows: arrays (B, S) of the training split, as
    `Examples.batch` gives them.
    """

    config: Config
    model: Any
    rows: dict[str, np.ndarray]


def compose(overrides: Sequence[str], command: str) -> Config:
    """The config of one run, from a command line.

    Args:
        overrides: as `llama-exp train` takes them.
        command: that verifies it, for messages.

    Raises:
        ConfigError: with every mistake; also for a sweep, and for options that show something.
    """
    composed = check_arguments(overrides)
    if composed.config is None or composed.sweep is not None:
        what, action = "verifies the configuration of one run", "leave the options out: -m, sweep=, --cfg, --help"
        raise ConfigError(Problem(what, command, " ".join(overrides), action))
    return composed.config


def without_dropout(config: Config) -> Config:
    """The config without dropout, whose masks are drawn anew for each way to compute a step."""
    lora = dataclasses.replace(config.lora, dropout=0.0)
    model = config.model
    if "dropout" in to_dict(model):
        model = model | {"dropout": 0.0} if isinstance(model, dict) else dataclasses.replace(model, dropout=0.0)
    return dataclasses.replace(config, lora=lora, model=model)


def build_subject(config: Config, tell: Callable[[str], None]) -> Subject:
    """The subject of a config, built as a run builds it; Keras is imported.

    Variables that begin as zeros (the second matrix of an adapter) get small values, because a product with zeros
    hides every mistake in what it multiplies.

    Args:
        config: typed.
        tell: called with what is being done.

    Raises:
        LlamaExpError: the data or the preset is missing or does not fit, as for a run.
    """
    config = without_dropout(config)
    runtime.start(**to_dict(config.runtime))
    dataset = instantiate(config.dataset, config.trusted_modules, "dataset")
    dataset.look()
    cache_dir = str(Path(config.runtime.cache_dir).expanduser())
    nothing_recorded = Path(cache_dir, "verify")  # no run begins or goes on
    resolved = resolve_preset(config, nothing_recorded)
    preset_folder = None if resolved is None else resolved.path
    tell("reading the data")
    dataset.open(cache_dir)
    runtime.import_backend()
    if preset_folder is not None:
        check_preset(config, preset_folder, nothing_recorded)
    targets = list_targets(config)
    check_targets(targets, config.trusted_modules, {where: find_added_arguments(where) for where in targets})
    tokenizer, examples = build_data(config, dataset, cache_dir, preset_folder)
    tell("building the model")
    model = build_model(config, preset_folder, tokenizer)
    _fill_zeros(model.backbone, config.seed)
    num_rows = max(2, min(MOST_ROWS, config.trainer.batch_size))
    rows = examples["train"].batch(np.arange(num_rows) % len(examples["train"]))
    return Subject(config, model, rows)


def _fill_zeros(backbone: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for variable in backbone.trainable_variables:
        if not np.any(np.asarray(variable)):
            variable.assign((rng.standard_normal(variable.shape) * _FILL_SCALE).astype("float32"))
