"""The functions that conf/*.yaml may call inside `${...}`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from llama_exp.config.check.budget_steps import budget_steps
from llama_exp.config.check.resolve import to_config
from llama_exp.config.identity import config_hash
from llama_exp.config.run_home import HASH_LETTERS, home_of, new_folder
from llama_exp.config.schema import Config
from llama_exp.runtime import default_cache_dir

LONGEST_FOLDER_NAME = 60


def share(fraction: float | str, steps: int | str, least: int | str = 0) -> int:
    """`${share:0.05,${trainer.max_steps}}`: that part of the steps, rounded down, but not below `least`.

    What comes from the environment is text.
    """
    return max(int(float(fraction) * int(steps)), int(least))


def folder_name(text: str) -> str:
    """`${folder_name:lora.rank=8}`: lora.rank-8; a long one is cut and ends in a hash of the whole.

    Only characters that need no quotes in `hydra.run.dir=<folder>`: a job is resumed that way.
    """
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text.replace(",", "_")).strip("-.") or "defaults"
    if len(name) <= LONGEST_FOLDER_NAME:
        return name
    return f"{name[: LONGEST_FOLDER_NAME - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:HASH_LETTERS]}"


def register() -> None:
    """Makes the functions known to OmegaConf; harmless when called again."""
    for resolver in (share, budget_steps, folder_name, default_cache_dir):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def register_run_dir(find_folder: Callable[[Config, Path], Path | None]) -> None:
    """Makes `${run_dir:}` known: outputs/<name>/<date_time>_<hash>, or the folder of the run that goes on.

    Args:
        find_folder: takes the config and the folder of all runs of this name; gives the folder of the run that goes
            on, or None for a new one.
    """

    def run_dir(*, _root_: DictConfig) -> str:
        config = to_config(_root_)
        return str(find_folder(config, home_of(config.name)) or new_folder(config.name, config_hash(config)))

    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
