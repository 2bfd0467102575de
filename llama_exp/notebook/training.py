"""One run in this process, as the command does it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from llama_exp.config.identity import config_hash
from llama_exp.config.run_home import home_of, new_folder
from llama_exp.config.schema import Config
from llama_exp.console import logs
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.home import require_home
from llama_exp.files.latest import without_latest
from llama_exp.files.writing import claim_folder, free_name
from llama_exp.notebook.cell import shown_in_cell
from llama_exp.notebook.composed import ComposedConfig, compose_again
from llama_exp.notebook.result import Result, load_run
from llama_exp.run import discard, resume
from llama_exp.run.sweep_app import LlamaApp
from llama_exp.sweeps.record import holds_sweep
from llama_exp.sweeps.reporter import find_by_folder


def train(
    *config: Config | str,
    folder: str | os.PathLike[str] | None = None,
    config_dir: str | os.PathLike[str] | None = None,
) -> Result:
    """Trains one run in this process, and returns what it left; its folder is as the command's.

        train("trainer=quick", "seed=1")      train(config)      train(config, "seed=2")

    A process has one backend: a second run in it must have the same. Interrupting it (the notebook's square) writes a
    checkpoint after the step and raises `Interrupted`; the same call with "resume=auto" goes on.

    Args:
        *config: overrides, or what `compose` returned and overrides that win over its own.
        folder: the run's; None: outputs/<name>/<time>_<hash>, or with `resume` the folder of the run that goes on.
        config_dir: a folder of your own choices, as `--config-dir`.

    Raises:
        ConfigError: with every mistake of the config; another backend runs in this process.
        LlamaExpError: what ended the run, as `run_job` raises it.
    """
    composed = compose_again(config, config_dir)
    require_home()
    with _as_the_command(composed), _own_umask():
        place, is_ours = _choose_folder(composed, folder)
        try:
            with shown_in_cell(), _console():
                from llama_exp.run.job import run_job

                run_job(composed, composed.overrides or (), place, is_chosen=True)
        finally:
            if is_ours and discard.is_empty(place):
                discard.remove(place)
    return load_run(place)


def _choose_folder(config: ComposedConfig, folder: str | os.PathLike[str] | None) -> tuple[Path, bool]:
    """Where the run is to be, and whether the folder was made for it here."""
    if folder is not None:
        return Path(folder).expanduser(), False
    if holds_sweep(Path(config.resume).expanduser()):
        action = f"go on with it by its command: llama-exp train resume={config.resume}"
        raise ConfigError(Problem("is a sweep, and a notebook trains one run", "resume", config.resume, action))
    found = resume.find_folder(config, home_of(config.name))
    if found is None:
        while not claim_folder(place := free_name(new_folder(config.name, config_hash(config)))):
            pass  # another process of this second was quicker
        return place, True
    found = Path(without_latest(str(found)))
    if find_by_folder(found, LlamaApp()) is not None:
        action = f"go on with it by its command, which tells the sweep: llama-exp train resume={found}"
        raise ConfigError(Problem("is a job of a sweep, which would not know of it", "resume", str(found), action))
    return found, False


@contextlib.contextmanager
def _as_the_command(config: ComposedConfig) -> Iterator[None]:
    """Meanwhile the command line is the one that does the same: the record and the hints have it, not a kernel's."""
    before = sys.argv
    options = [] if config.config_dir is None else [f"--config-dir={config.config_dir}"]
    sys.argv = ["llama-exp", "train", *options, *(config.overrides or ())]
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _own_umask() -> Iterator[None]:
    """A run makes files for its owner only; what the notebook makes afterwards is as before."""
    before = os.umask(0o077)
    os.umask(before)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _console() -> Iterator[None]:
    """Log lines are shown while the run lasts, and are the notebook's business again afterwards."""
    before = list(logs.LOGGER.handlers)
    try:
        yield
    finally:
        for handler in [handler for handler in logs.LOGGER.handlers if handler not in before]:
            logs.detach(handler)
