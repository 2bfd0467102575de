"""The calls of wandb itself: a run that opens within bounded time, sends no secrets, and is shut down in silence."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any, Literal

from llama_exp.files.writing import move
from llama_exp.limits.logger import LoggerMode

# A server that does not answer may cost a run this much, and no more.
INIT_TIMEOUT_SECONDS = 10.0
FINISH_TIMEOUT_SECONDS = 30.0
# With a model to send, which somebody asked for.
MODEL_TIMEOUT_SECONDS = 600.0
# What a SIGKILL may take from an offline file; W&B's own default is 15 s.
FLUSH_SECONDS = 1.0
_SUPERSEDED = "superseded-"


def connect(mode: LoggerMode, folder: Path, finish_seconds: float | None = None, **arguments: Any) -> Any:
    """An open W&B run whose files lie below `folder`.

    Args:
        mode: online or offline.
        folder: the run folder; W&B makes `wandb` in it.
        finish_seconds: how long its end may take; None: FINISH_TIMEOUT_SECONDS.
        **arguments: of `wandb.init`.

    Raises:
        RuntimeError: wandb cannot be imported.
        Exception: whatever wandb raises where it finds no server.
    """
    try:
        import wandb
    except ImportError as error:
        raise RuntimeError(f"wandb cannot be imported ({error}); the run goes on without it") from error
    wandb.setup(settings=wandb.Settings(silent=True))
    _set_aside_earlier_attempts(folder)
    settings = wandb.Settings(
        mode=mode.value,
        init_timeout=INIT_TIMEOUT_SECONDS,
        finish_timeout=FINISH_TIMEOUT_SECONDS if finish_seconds is None else finish_seconds,
        finish_timeout_raises=True,  # what is not sent by then is told
        silent=True,
        console="off",
        save_code=False,
        disable_git=True,
        disable_job_creation=True,
        symlink=False,
        x_disable_meta=True,  # holds the command line, secrets and all
        x_disable_machine_info=True,
        x_transaction_log_flush_interval=FLUSH_SECONDS,
    )
    resume: Literal["allow"] | None = "allow" if mode is LoggerMode.online else None
    return wandb.init(dir=str(folder), resume=resume, reinit="finish_previous", settings=settings, **arguments)


def to_page(text: str) -> Any:
    """HTML as a panel."""
    import wandb

    return wandb.Html(text)


def log_folder(run: Any, folder: Path, name: str, kind: str) -> None:
    """Adds a folder to the run as an artifact; offline its files wait beside the run's."""
    import wandb

    artifact = wandb.Artifact(name, type=kind)
    artifact.add_dir(str(folder))
    run.log_artifact(artifact)


def shut_down() -> None:
    """Ends W&B's service in silence, if there is one."""
    if (wandb := sys.modules.get("wandb")) is not None:
        with contextlib.suppress(Exception):
            wandb.teardown()


def _set_aside_earlier_attempts(folder: Path) -> None:
    """Renames offline folders of before the resume, so that `wandb sync` does not send half of the run twice."""
    for attempt in (folder / "wandb").glob("offline-run-*"):
        move(attempt, attempt.with_name(f"{_SUPERSEDED}{time.time_ns()}-{attempt.name}"))
