"""The folder of a run that begins or goes on, once nothing that is recorded forbids it."""

from __future__ import annotations

import logging
from pathlib import Path

from llama_exp.config.identity import to_record
from llama_exp.config.schema import Config
from llama_exp.errors import LlamaExpError
from llama_exp.files.process import Process
from llama_exp.files.shown_path import show_path
from llama_exp.run import discard, recorded, resume
from llama_exp.run.folder import RunFolder
from llama_exp.run.trunk import Trunk, find_trunk
from llama_exp.run.unfinished import last_step, require_run_record

_log = logging.getLogger(__name__)


def choose_trunk(config: Config, folder: Path) -> Trunk | None:
    """The state of another run to begin with; None: the config names none, or the run has checkpoints of its own.

    Raises:
        ConfigError, InputError: as `find_trunk`.
    """
    if config.branch_from is None:
        return None
    if config.resume != resume.NEW and RunFolder.holds_run(folder) and last_step(folder) >= 0:
        _log.info("%s goes on with its own checkpoints; branch_from is where it began", show_path(folder))
        return None
    try:
        return find_trunk(config)
    except LlamaExpError:
        if folder.is_dir() and discard.is_empty(folder):  # Hydra made it
            discard.remove(folder)
        raise


def open_folder(config: Config, folder: Path, process: Process, is_chosen: bool, trunk: Trunk | None) -> RunFolder:
    """The owned folder; before it is touched, a run that cannot go on is refused.

    Args:
        config: the whole typed config.
        folder: where the run is to be; with `resume` other than `none` it may hold the run that goes on.
        process: which of the run's processes this is.
        is_chosen: whether the user named the folder; else one beside it is taken where another run has it.
        trunk: the state of another run that it begins with.

    Raises:
        ConfigError: the config differs from the recorded one, or wants fewer steps than were done.
        InputError: what the run recorded, or the adapter that it began with, is damaged or gone.
        BusyError, StorageError: as `RunFolder.create`.
    """
    continues = resume.continues(config.resume, folder)
    if continues:
        require_run_record(folder)
        resume.check_unchanged(folder, to_record(config))
        resume.check_length(config.resume, folder, config.trainer.max_steps)
        recorded.check_adapter(folder, config.lora.source)
        if trunk is None:  # else it was cut before its first checkpoint, and takes the other run's state again
            recorded.check_progress(folder)
            recorded.check_optimizer(folder)
    elif config.resume == resume.AUTO and trunk is None:
        found = f"no run in {folder}" if is_chosen else "no unfinished run of this configuration"
        _log.info("resume=auto finds %s: a new one begins", found)
    if trunk is not None:
        recorded.check_adapter(trunk.run, config.lora.source)
    begin = RunFolder.reopen if continues else RunFolder.create if is_chosen else RunFolder.create_beside
    run_folder = begin(folder, process)
    _log.info("run folder %s%s", show_path(run_folder.path), " (continued)" if continues else "")
    return run_folder
