"""Those who watch a run: its own files, the logger, the terminal, and the user's callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_exp.config.identity import flatten, to_record
from llama_exp.config.instantiate import instantiate
from llama_exp.config.loggers import list_loggers
from llama_exp.config.schema import Config
from llama_exp.console import progress
from llama_exp.run.folder import RunFolder


def build_loggers(config: Config, folder: Path, group: str | None) -> dict[str, Any]:
    """The mirrors of a run by their config key: `logger`, `logger.tensorboard` ..."""
    return {
        where: instantiate(
            section,
            config.trusted_modules,
            where,
            folder=folder,
            name=f"{config.name}/{folder.name}",
            group=group,
            config=flatten(to_record(config)),
        )
        for where, section in list_loggers(config.logger).items()
    }


def build_observers(config: Config, run_folder: RunFolder, group: str | None, bar: progress.Progress) -> dict[str, Any]:
    """Those who watch the training, the user's callbacks last."""
    observers = {"kept": run_folder.kept, "metrics": run_folder.metrics, "evaluations": run_folder.evaluations}
    observers["samples"] = run_folder.samples
    loggers = build_loggers(config, run_folder.path, group)
    run_folder.record(logger={where: one.record() for where, one in loggers.items() if hasattr(one, "record")})
    observers |= loggers
    observers["progress"] = bar
    for name, node in config.trainer.callbacks.items():
        observers[name] = instantiate(node, config.trusted_modules, f"trainer.callbacks.{name}")
    return observers
