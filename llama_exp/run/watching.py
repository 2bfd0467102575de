"""Those who watch a run: its own files, the logger, the terminal, and the user's callbacks."""

from __future__ import annotations

from typing import Any

from llama_exp.config.identity import flatten, to_record
from llama_exp.config.instantiate import instantiate
from llama_exp.config.schema import Config
from llama_exp.console import progress
from llama_exp.run.folder import RunFolder


def build_observers(config: Config, run_folder: RunFolder, group: str | None, bar: progress.Progress) -> dict[str, Any]:
    """Those who watch the training, the user's callbacks last."""
    observers = {"kept": run_folder.kept, "metrics": run_folder.metrics, "samples": run_folder.samples}
    observers["logger"] = instantiate(
        config.logger,
        config.trusted_modules,
        "logger",
        folder=run_folder.path,
        name=f"{config.name}/{run_folder.path.name}",
        group=group,
        config=flatten(to_record(config)),
    )
    observers["progress"] = bar
    for name, node in config.trainer.callbacks.items():
        observers[name] = instantiate(node, config.trusted_modules, f"trainer.callbacks.{name}")
    return observers
