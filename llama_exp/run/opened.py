"""The folder of a run that begins or goes on, once nothing that is recorded forbids it."""

from __future__ import annotations

import logging
from pathlib import Path

from llama_exp.config.identity import to_record
from llama_exp.config.schema import Config
from llama_exp.files.process import Process
from llama_exp.files.shown_path import show_path
from llama_exp.run import recorded, resume
from llama_exp.run.folder import RunFolder
from llama_exp.run.unfinished import require_run_record

_log = logging.getLogger(__name__)


def open_folder(config: Config, folder: Path, process: Process, is_chosen: bool) -> RunFolder:
    """The owned folder; before it is touched, a run that cannot go on is refused.

    Args:
        config: the whole typed config.
        folder: where the run is to be; with `resume` other than `none` it may hold the run that goes on.
        process: which of the run's processes this is.
        is_chosen: whether the user named the folder; else one beside it is taken where another run has it.

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
        recorded.check_progress(folder)
        recorded.check_optimizer(folder)
    elif config.resume == resume.AUTO:
        found = f"no run in {folder}" if is_chosen else "no unfinished run of this configuration"
        _log.info("resume=auto finds %s: a new one begins", found)
    begin = RunFolder.reopen if continues else RunFolder.create if is_chosen else RunFolder.create_beside
    run_folder = begin(folder, process)
    _log.info("run folder %s%s", show_path(run_folder.path), " (continued)" if continues else "")
    return run_folder
