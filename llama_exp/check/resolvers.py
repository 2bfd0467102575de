"""The functions that conf/*.yaml may call inside `${...}`."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from llama_exp.check.identity import config_hash
from llama_exp.check.resolve import to_config

HASH_LETTERS = 8
LONGEST_FOLDER_NAME = 60


def share(fraction: float, steps: int) -> int:
    """`${share:0.05,${trainer.max_steps}}`: that part of the steps, rounded down."""
    return int(float(fraction) * int(steps))


def folder_name(text: str) -> str:
    """`${folder_name:lora.rank=8}`: lora.rank-8; a long one is cut and ends in a hash of the whole.

    Only characters that need no quotes in `hydra.run.dir=<folder>`: a job is resumed that way.
    """
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text.replace(",", "_")).strip("-.") or "defaults"
    if len(name) <= LONGEST_FOLDER_NAME:
        return name
    return f"{name[: LONGEST_FOLDER_NAME - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:HASH_LETTERS]}"


def run_dir(*, _root_: DictConfig) -> str:
    """`${run_dir:}`: outputs/<name>/<date_time>_<hash>, or the folder of the run that `resume` continues."""
    from llama_exp import resume

    config = to_config(_root_)
    full_hash, root = config_hash(config), Path("outputs") / config.name
    folder = resume.folder_of(config.resume, root, full_hash)
    return str(folder or root / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{full_hash[:HASH_LETTERS]}")


def register() -> None:
    """Makes the functions known to OmegaConf; harmless when called again."""
    for resolver in (share, folder_name, run_dir):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
