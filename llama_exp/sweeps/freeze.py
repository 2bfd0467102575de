"""The jobs of a sweep as they are when it begins: later edits of YAML files change none of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from llama_exp.sweeps.jobs import Job


def freeze(
    config: DictConfig,
    hydra_context: HydraContext,
    points: Sequence[Sequence[str]],
    numbers: Sequence[int],
    folders: Sequence[str | None] | None = None,
) -> list[Job]:
    """The jobs of a grid's points, each composed, with its folder.

    Args:
        config: the sweep's, as Hydra gave it to the launcher.
        hydra_context: Hydra's.
        points: the overrides of each job.
        numbers: of each, its place in the sweep.
        folders: of each, relative to the sweep's, where its record has one; by default as Hydra names them.
    """
    common = set.intersection(*map(set, points)) if points else set()
    known = [None] * len(points) if folders is None else folders
    return [
        _freeze(hydra_context.config_loader.load_sweep_config(config, list(point)), number, point, common, folder)
        for number, point, folder in zip(numbers, points, known, strict=True)
    ]


def _freeze(cfg: DictConfig, number: int, point: Sequence[str], common: set[str], folder: str | None) -> Job:
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.job.id = str(number)
        cfg.hydra.job.num = number
    with hydra_is_of(cfg):
        sweep_dir = str(cfg.hydra.sweep.dir)
        subdir = str(cfg.hydra.sweep.subdir) if folder is None else folder
    with read_write(cfg.hydra), open_dict(cfg.hydra):  # said once: with the time in it, a later answer differs
        cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir = sweep_dir, subdir
    own = tuple(line for line in point if line not in common)
    return Job(number, own, tuple(point), Path(os.path.abspath(sweep_dir), subdir), cfg)


@contextlib.contextmanager
def hydra_is_of(cfg: DictConfig) -> Iterator[None]:
    """A block in which `${hydra:...}` means this job's node."""
    instance = HydraConfig.instance()
    before = instance.cfg
    instance.set_config(cfg)
    try:
        yield
    finally:
        instance.cfg = before


def without_hydra(cfg: DictConfig) -> DictConfig:
    """What the job's function gets."""
    with hydra_is_of(cfg):
        plain: Any = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    return plain
