"""The room on the disk that a run will take, compared with what is free before anything is computed.

    checkpoints   what trains and its optimizer's state, as often as the newest stay and one more while it is written
    model         every parameter; with adapters instead: adapter

What is small beside them (metrics, samples, picture, W&B's files) is left out, and so is the state of an optimizer
of the user's own: a run that would fit is never refused. Imports no framework.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from llama_exp.config.schema import Config
from llama_exp.errors import Problem, StorageError


def count_disk_bytes(
    config: Config, num_base: int, num_adapter: int, variable_bytes: int, state_bytes: int | None
) -> dict[str, int]:
    """Component -> bytes at the peak.

    Args:
        config: the run's.
        num_base: parameters of the model.
        num_adapter: parameters of its adapters, which then train alone; 0: there are none.
        variable_bytes: of a parameter of the model; an adapter's has 4.
        state_bytes: of the optimizer's state; None: not known.
    """
    trainer, parameter_bytes = config.trainer, 4 if num_adapter else variable_bytes
    num_trainable = num_adapter or num_base
    num_checkpoints = min(trainer.keep_checkpoints + 1, math.ceil(trainer.max_steps / trainer.checkpoint_every_steps))
    num_checkpoints += trainer.keep_best is not None
    return {
        "checkpoints": num_checkpoints * (num_trainable * parameter_bytes + (state_bytes or 0)),
        "adapter" if num_adapter else "model": num_trainable * parameter_bytes,
    }


def require_room(folder: Path, disk_bytes: Mapping[str, int]) -> None:
    """Compares the disk of a run folder with what the run will write there; what it holds already counts.

    Raises:
        StorageError: there is less.
    """
    needed = sum(max(0, size - _size_of(folder / name)) for name, size in disk_bytes.items())
    free = shutil.disk_usage(folder).free
    if needed > free:
        parts = ", ".join(f"{name} {_mib(size)}" for name, size in disk_bytes.items())
        what = "the disk has no room for what the run will write"
        found = f"{_mib(free)} free, {_mib(needed)} needed ({parts})"
        action = "free some space, lower trainer.keep_checkpoints, or choose another disk with hydra.run.dir=<folder>"
        raise StorageError(Problem(what, str(folder), found, action))


def _size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
