"""The run in Weights & Biases: a mirror of `metrics.jsonl` that never blocks, kills or changes the training.

Offline (the default) W&B's files lie in the run folder and `wandb sync` sends them later; online they are sent while
the run goes on. `metrics.jsonl` stays the record: a resumed run writes the rows of the checkpointed part from it again,
so that the newest offline folder is always the whole run, and the server gets exactly the rows that it lacks.
Imports wandb only when the first row arrives, and not at all with mode `disabled`.
"""

from __future__ import annotations

import contextlib
import html
import importlib.util
import logging
import netrc
import os
import secrets
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llama_exp.console.logs import FOR_THE_RECORD
from llama_exp.errors import ConfigError, ExitCode, Problem
from llama_exp.files.json_text import plain
from llama_exp.files.metrics_file import read_metrics
from llama_exp.files.redact import is_secret_name, printable, redact
from llama_exp.files.shown_path import show_path
from llama_exp.files.writing import move
from llama_exp.limits import choose
from llama_exp.limits.logger import LIMITS, LoggerMode

# A server that does not answer may cost a run this much, and no more.
INIT_TIMEOUT_SECONDS = 10.0
FINISH_TIMEOUT_SECONDS = 30.0
# What a SIGKILL may take from an offline file; W&B's own default is 15 s.
FLUSH_SECONDS = 1.0
# What a run is, says its config: these variables of W&B's do not count, unlike those for who sends where
# (WANDB_API_KEY, WANDB_BASE_URL, WANDB_ENTITY ...). A sweep's id would give the run another project and id.
_VARIABLES: tuple[str, ...] = (
    "DISABLED",
    "JOB_TYPE",
    "MODE",
    "NAME",
    "NOTES",
    "PROJECT",
    "RESUME",
    "RUN_GROUP",
    "RUN_ID",
    "SWEEP_ID",
)
_VARIABLES += ("TAGS",)
_EXIT_CODES = {
    "finished": ExitCode.OK,
    "preempted": ExitCode.PREEMPTED,
    "pruned": ExitCode.PREEMPTED,
    "interrupted": ExitCode.INTERRUPTED,
}
_SUPERSEDED = "superseded-"
_log = logging.getLogger(__name__)


class WandbLogger:
    """Observer that mirrors the run in W&B.

    Rows of one step become one W&B row with the keys `train/loss`, `validation/loss` and so on, at W&B step = optimizer
    step. Samples become an HTML panel of their step.

    Args:
        mode: where the data goes.
        project, entity, tags: W&B's own; entity None is the account's default.
        folder: the run folder; W&B's files go to its subfolder `wandb`.
        name: the run's name.
        group: joins the runs of a sweep, or None.
        config: the resolved config, flat (`lora.rank`); stored without secrets.
        run_id: W&B id; None makes one. A checkpoint's id takes its place.

    Raises:
        ConfigError: mode `online` without an API key or without wandb.
    """

    def __init__(
        self,
        mode: LoggerMode | str,
        project: str,
        entity: str | None,
        tags: Sequence[str],
        *,
        folder: Path,
        name: str,
        group: str | None = None,
        config: Mapping[str, Any] | None = None,
        run_id: str | None = None,
    ):
        LIMITS.require(project=project, entity=entity, tags=list(tags))
        self._mode = choose(LoggerMode, mode, "logger.mode")
        if problems := list(find_credential_problems(self._mode)):
            raise ConfigError(*problems)
        self._project = project
        self._entity = entity
        self._tags = list(tags)
        self._folder = Path(folder)
        self._name = name
        self._group = group
        self._config = _without_secrets(config or {})
        self._run_id = run_id or secrets.token_hex(4)
        self._run: Any = None
        self._given_up = self._mode is LoggerMode.disabled
        self._rows = 0  # of metrics.jsonl that this observer was given, in this process and before
        self._restored_rows = 0
        self._next_step = 0  # W&B takes no row below it
        self._step = 0
        self._pending: dict[str, Any] = {}
        self._samples: list[str] = []

    @property
    def sync_command(self) -> str | None:
        """The command that sends the run to W&B; None if nothing waits for that."""
        if self._run is None or self._mode is not LoggerMode.offline:
            return None
        return shlex.join(["wandb", "sync", show_path(Path(self._run.settings.sync_dir))])

    def on_start(self, facts: dict[str, Any]) -> None:
        """Takes the facts of the run that are scalars into the W&B config, as `facts.<name>`."""
        scalars = {key: value for key, value in facts.items() if isinstance(value, str | int | float | bool)}
        self._config |= _without_secrets({f"facts.{key}": value for key, value in scalars.items()})

    def on_metrics(self, row: dict[str, Any]) -> None:
        """Takes a row; it is sent when the next step begins."""
        if self._given_up:
            return
        self._begin(row["step"])
        self._pending |= _wandb_row(row)
        self._rows += 1

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Takes a sample; it is sent with the rows of its step."""
        if self._given_up:
            return
        self._begin(step)
        continuation = html.escape(printable(redact(text.removeprefix(prompt))))
        self._samples.append(f"<pre><b>{html.escape(printable(redact(prompt)))}</b>{continuation}</pre>")

    def on_finish(self, status: str) -> None:
        """Ends the W&B run within bounded time; what a server did not take waits on the disk."""
        if self._run is not None and not self._given_up:
            with self._harmless("finish"):
                self._flush()
                self._run.finish(exit_code=int(_EXIT_CODES.get(status, ExitCode.BUG)))
                if self.sync_command:  # the end of the run tells it
                    _log.info("W&B: send this run with: %s", self.sync_command, extra=FOR_THE_RECORD)
        if self._given_up:
            self._abandon()

    def state(self) -> dict[str, Any]:
        """The W&B id and how many rows the run has had, for a checkpoint."""
        return {"run_id": self._run_id, "rows": self._rows}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues the W&B run of a checkpoint."""
        self._run_id = state["run_id"]
        self._rows = self._restored_rows = state["rows"]

    def _begin(self, step: int) -> None:
        """Opens the run if this is its first step, and sends the step before."""
        with self._harmless("log"):
            if self._run is None:
                with _config_decides(self._mode):
                    self._open()
            elif step != self._step:
                self._flush()
            self._step = step

    def _flush(self) -> None:
        if self._samples:
            import wandb

            self._pending["samples"] = wandb.Html("\n".join(self._samples))
        self._send(self._step, self._pending)
        self._pending, self._samples = {}, []

    def _send(self, step: int, values: dict[str, Any]) -> None:
        if values and step >= self._next_step:
            self._run.log(values, step=step, commit=True)
            self._next_step = step + 1

    def _open(self) -> None:
        try:
            import wandb
        except ImportError as error:
            raise RuntimeError(f"wandb cannot be imported ({error}); the run goes on without it") from error
        wandb.setup(settings=wandb.Settings(silent=True))
        self._set_aside_earlier_attempts()
        try:
            self._run = self._init(wandb, self._mode)
        except Exception as error:
            if self._mode is LoggerMode.offline:
                raise
            _log.warning("W&B: no connection, the run stays offline (%s)", _one_line(error))
            wandb.teardown()  # the failed attempt still holds the run id
            self._mode = LoggerMode.offline
            self._run = self._init(wandb, self._mode)
        self._next_step = self._run.starting_step
        self._replay()
        where = self._run.url if self._mode is LoggerMode.online else self._run.settings.sync_dir
        offline = self._mode is LoggerMode.offline  # the end of the run says how to send it
        _log.info("W&B %s: %s", self._mode.value, where, extra=FOR_THE_RECORD if offline else None)

    def _init(self, wandb: Any, mode: LoggerMode) -> Any:
        settings = wandb.Settings(
            mode=mode.value,
            init_timeout=INIT_TIMEOUT_SECONDS,
            finish_timeout=FINISH_TIMEOUT_SECONDS,
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
        return wandb.init(
            project=redact(self._project),
            entity=self._entity,
            tags=[redact(tag) for tag in self._tags],
            group=None if self._group is None else redact(self._group),
            name=redact(self._name),
            id=self._run_id,
            dir=str(self._folder),
            config=dict(self._config),
            resume="allow" if mode is LoggerMode.online else None,
            reinit="finish_previous",
            settings=settings,
        )

    def _replay(self) -> None:
        """Sends the rows before the checkpoint again, as far as W&B lacks them."""
        steps: dict[int, dict[str, Any]] = {}
        for row in read_metrics(self._folder / "metrics.jsonl")[: self._restored_rows]:
            steps.setdefault(row["step"], {}).update(_wandb_row(row))
        for step, values in steps.items():
            self._send(step, values)

    def _set_aside_earlier_attempts(self) -> None:
        """Renames offline folders of before the resume, so that `wandb sync` does not send half of the run twice."""
        for folder in (self._folder / "wandb").glob("offline-run-*"):
            number = time.time_ns()
            move(folder, folder.with_name(f"{_SUPERSEDED}{number}-{folder.name}"))

    def _abandon(self) -> None:
        """Shuts down a service that failed before, in silence: at exit it would end in a traceback."""
        if self._mode is not LoggerMode.disabled and (wandb := sys.modules.get("wandb")) is not None:
            with contextlib.suppress(Exception):
                wandb.teardown()

    @contextlib.contextmanager
    def _harmless(self, action: str) -> Iterator[None]:
        """Whatever goes wrong inside ends the mirror with one warning, never the training."""
        try:
            yield
        except Exception as error:
            self._given_up = True
            text = "W&B: %s failed, this run is no longer mirrored; metrics.jsonl is (%s)"
            _log.warning(text, action, _one_line(error))


def find_credential_problems(mode: LoggerMode) -> Iterator[Problem]:
    """Why mode `online` cannot work: no API key, or wandb is not installed. Imports no wandb.

    W&B itself would ask for the key at a terminal, when the first row arrives: by then nobody may sit there.
    """
    if mode is not LoggerMode.online:
        return
    if importlib.util.find_spec("wandb") is None:
        action = "pip install wandb, or logger.mode=offline, or logger.mode=disabled"
        yield Problem("wandb is not installed", "logger.mode", "online", action)
    elif not _has_key():
        action = "run `wandb login` once, or set the environment variable WANDB_API_KEY, or use logger.mode=offline"
        yield Problem("W&B has no API key", "logger.mode", "online", action)


@contextlib.contextmanager
def _config_decides(mode: LoggerMode) -> Iterator[None]:
    """Hides the variables that the config takes the place of, and names those that are set."""
    names = (f"WANDB_{name}" for name in _VARIABLES)
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    differing = [name for name in hidden if (name, hidden[name]) != ("WANDB_MODE", mode.value)]
    if differing:
        _log.warning("W&B: %s: does not count, logger.* and the run's name decide", ", ".join(differing))
    try:
        yield
    finally:
        os.environ.update(hidden)


def _without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values that JSON can hold; entries with a secret's name are left out."""
    return {key: plain(value) for key, value in config.items() if not is_secret_name(key)}


def _has_key() -> bool:
    """Whether wandb will find credentials: in the environment, or in the netrc file for the server's host."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        hosts = set(netrc.netrc(path).hosts)
        if base_url := os.environ.get("WANDB_BASE_URL"):
            return urlsplit(base_url).netloc in hosts
        return any(host.endswith(("wandb.ai", "coreweave.com")) for host in hosts)
    return False


def _wandb_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row's figures under `<split>/<name>`; W&B takes NaN and infinities as floats."""
    split = row["split"]
    return {
        f"{split}/{key}": value
        for key, value in row.items()
        if key not in ("step", "split") and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _one_line(error: BaseException) -> str:
    text = " ".join(printable(redact(str(error))).split())
    return f"{type(error).__name__}: {text[:200]}"
