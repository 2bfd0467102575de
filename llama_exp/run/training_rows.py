"""The rows that a finished run was trained on, made again or taken from the cache."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from llama_exp import runtime
from llama_exp.config.instantiate import instantiate
from llama_exp.config.stated_evaluation import type_dataset
from llama_exp.errors import ConfigError, InputError
from llama_exp.results import RunResult

_log = logging.getLogger(__name__)


def find_training_rows(run: RunResult, tokenizer: Any) -> Any:
    """The training rows (`llama_exp.dataset.Examples`); None, with a line of the log, where they cannot be had.

    Args:
        run: a finished one.
        tokenizer: of its model.
    """
    try:
        dataset = instantiate(type_dataset(run.config.get("dataset")), [], "dataset")
        cache_dir = Path(str(run.values.get("runtime.cache_dir") or "")).expanduser()
        if not cache_dir.is_dir() or cache_dir == Path():
            cache_dir = Path(runtime.default_cache_dir())
        dataset.look()
        dataset.open(cache_dir)
        loss_on = run.values.get("objective.loss_on")
        rows = dataset.prepare(tokenizer, cache_dir=cache_dir, loss_on=loss_on)["train"]
    except (ConfigError, InputError) as error:
        problem = error.problems[0]
        _log.warning("items are not looked for in the training rows: %s: %s", problem.where, problem.what)
        return None
    recorded = run.record.get("dataset")
    train = recorded.get("train") if isinstance(recorded, dict) else None
    if not isinstance(train, dict) or train.get("fingerprint") != rows.fingerprint:
        _log.warning("items are not looked for in the training rows: the data have changed since the run")
        return None
    return rows
