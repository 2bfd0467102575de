"""The jobs of a sweep as they are when it begins: later edits of YAML files change none of them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import filter_overrides
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from llama_exp.sweeps.app import App
from llama_exp.sweeps.jobs import Job


def freeze(
    config: DictConfig, hydra_context: HydraContext, points: Sequence[Sequence[str]], numbers: Sequence[int]
) -> list[Job]:
    """The jobs of a grid's points, each composed, with its folder.

    Args:
        config: the sweep's, as Hydra gave it to the launcher.
        hydra_context: Hydra's.
        points: the overrides of each job.
        numbers: of each, its place in the sweep.
    """
    common = set.intersection(*map(set, points)) if points else set()
    jobs = []
    for number, point in zip(numbers, points, strict=True):
        cfg = hydra_context.config_loader.load_sweep_config(config, list(point))
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.job.id = str(number)
            cfg.hydra.job.num = number
        with hydra_is_of(cfg):
            sweep_dir, subdir = str(cfg.hydra.sweep.dir), str(cfg.hydra.sweep.subdir)
        with read_write(cfg.hydra), open_dict(cfg.hydra):  # said once: with the time in it, a later answer differs
            cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir = sweep_dir, subdir
        own = tuple(line for line in filter_overrides(point) if line not in common)
        jobs.append(Job(number, own, tuple(point), Path(os.path.abspath(sweep_dir), subdir), cfg))
    return jobs


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
        plain: Any = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    return plain


def find_same(jobs: Sequence[Job], app: App) -> dict[int, int]:
    """Number of a job -> number of an earlier one that is the same point."""
    seen: dict[str, int] = {}
    same: dict[int, int] = {}
    for job in jobs:
        with hydra_is_of(job.cfg):
            identity, record = app.identify(job.cfg)
        of_hydra = sorted(line for line in job.all_overrides if line.lstrip("+~").startswith("hydra"))
        key = json.dumps([identity, record, of_hydra], sort_keys=True, default=str)
        first = seen.setdefault(key, job.number)
        if first != job.number:
            same[job.number] = first
    return same
