"""The run in Weights & Biases: a mirror of `metrics.jsonl` that never blocks, kills or changes the training.

Offline (the default) W&B's files lie in the run folder and `llama-exp sync` sends the run later; online it is sent
while it goes on. A resumed run writes the rows of the checkpointed part again, so that the newest offline folder is
always the whole run, and the server gets exactly the rows that it lacks. Imports wandb only when the first row
arrives, and not at all with mode `disabled`.
"""

from __future__ import annotations

import html
import logging
import math
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_exp.console.logs import FOR_THE_RECORD
from llama_exp.errors import ConfigError, ExitCode
from llama_exp.files.json_file import read_record
from llama_exp.files.redact import printable, redact
from llama_exp.files.shown_path import show_path
from llama_exp.limits import choose
from llama_exp.limits.logger import LIMITS, LoggerMode
from llama_exp.logger import wandb_session
from llama_exp.logger.mirror import Mirror, one_line
from llama_exp.logger.needed import find_wandb_problems
from llama_exp.logger.variables import only_what_is_settled, settle

_EXIT_CODES = {
    "finished": ExitCode.OK,
    "preempted": ExitCode.PREEMPTED,
    "pruned": ExitCode.PREEMPTED,
    "interrupted": ExitCode.INTERRUPTED,
}
_LOSS = "validation/loss"
_log = logging.getLogger(__name__)


class WandbLogger(Mirror):
    """Observer that mirrors the run in W&B.

    Rows of one step become one W&B row with the keys `train/loss`, `validation/loss` and so on, at W&B step = optimizer
    step. Samples become an HTML panel of their step. The summary has the last row's figures, `best/validation_loss`,
    `best/step` and `status`.

    Args:
        mode: where the data goes.
        project, entity, tags: W&B's own. Of these and the mode, None leaves the choice to the variables WANDB_MODE,
            WANDB_PROJECT, WANDB_ENTITY, WANDB_TAGS, and behind them to offline, llama_exp, the account's default, none.
        log_model: whether the adapter or model becomes a W&B artifact at the end.
        folder: the run folder; W&B's files go to its subfolder `wandb`.
        name: the run's name, unless WANDB_NAME gives one.
        group: joins the runs of a sweep, unless WANDB_RUN_GROUP does; or None.
        config: the resolved config, flat (`lora.rank`); stored without secrets.
        run_id: W&B id; None takes that of the folder's run.json, or makes one. A checkpoint's takes its place.
        falls_back: whether a run that finds no server goes on offline; else the mirror ends.
        finish_seconds: how long the end may take; None: the session's own limit.

    Raises:
        ConfigError: mode `online` without an API key or without wandb; a variable with a value that W&B refuses.
    """

    def __init__(
        self,
        mode: LoggerMode | str | None,
        project: str | None,
        entity: str | None,
        tags: Sequence[str] | None,
        log_model: bool,
        *,
        folder: Path,
        name: str,
        group: str | None = None,
        config: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        falls_back: bool = True,
        finish_seconds: float | None = None,
    ):
        super().__init__("W&B", folder, name, group, config)
        tags = None if tags is None else list(tags)
        LIMITS.require(project=project, entity=entity, tags=tags)
        stated = {
            "mode": None if mode is None else choose(LoggerMode, mode, "logger.mode"),
            "project": project,
            "entity": entity,
            "tags": tags,
        }
        if problems := list(find_wandb_problems(stated)):
            raise ConfigError(*problems)
        settled = settle(stated, _recorded(self._folder), {"group": group, "name": name})
        self._settled = settled
        self._mode = settled.mode
        self._log_model = log_model
        self._falls_back = falls_back
        self._finish_seconds = finish_seconds or (wandb_session.MODEL_TIMEOUT_SECONDS if log_model else None)
        self._run_id = run_id or settled.run_id or secrets.token_hex(4)
        self._run: Any = None
        self._next_step = 0  # W&B takes no row below it
        self._sent_steps = 0
        self._step = 0
        self._pending: dict[str, Any] = {}
        self._samples: list[str] = []
        self._best: tuple[float, int] | None = None  # validation loss and its step
        self._status: str | None = None

    @property
    def sync_command(self) -> str | None:
        """The command that sends the run to W&B; None if nothing waits for that."""
        if self._run is None or (self._mode is not LoggerMode.offline and self.failure is None):
            return None
        return shlex.join(["llama-exp", "sync", show_path(self._folder)])

    @property
    def outcome(self) -> str:
        """What was written where."""
        if self._run is None:
            return "nothing to send"
        where = self._run.url if self._mode is LoggerMode.online else show_path(Path(self._run.settings.sync_dir))
        return f"{self._sent_steps} steps to {where}"

    def record(self) -> dict[str, Any]:
        """What run.json says: the W&B run, and where each of its settings comes from."""
        settled = self._settled
        return {
            "run_id": self._run_id,
            "mode": settled.mode.value,
            "project": settled.project,
            "entity": settled.entity,
            "tags": settled.tags,
            "group": settled.group,
            "name": settled.name,
            "from": settled.sources,
        }

    def on_metrics(self, row: dict[str, Any]) -> None:
        """Takes a row; it is sent when the next step begins."""
        if self._mode is not LoggerMode.disabled:
            super().on_metrics(row)

    def on_evaluation(self, row: dict[str, Any]) -> None:
        """Takes a row of an evaluation, as `on_metrics` does."""
        if self._mode is not LoggerMode.disabled:
            super().on_evaluation(row)

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Takes a sample; it is sent with the rows of its step."""
        if self.failure is not None or self._mode is LoggerMode.disabled:
            return
        with self._harmless("log"):
            self._begin()
            self._move_to(step)
        continuation = html.escape(printable(redact(text.removeprefix(prompt))))
        self._samples.append(f"<pre><b>{html.escape(printable(redact(prompt)))}</b>{continuation}</pre>")

    def on_finish(self, status: str) -> None:
        """Ends the W&B run within bounded time; what a server did not take waits on the disk.

        A finished run whose model is asked for stays open until `on_export`.
        """
        self._status = status
        if not (self._log_model and status == "finished"):
            self._end()

    def on_export(self, folder: Path | None) -> None:
        """Takes the adapter's or model's folder (None: it could not be written) as an artifact, and ends the run."""
        if self._status != "finished" or not self._log_model:
            return
        lost: str | None = None
        if folder is not None and self._run is not None and self.failure is None:
            try:
                wandb_session.log_folder(self._run, folder, _artifact_name(self._name, folder), folder.name)
            except Exception as error:  # no reason to lose the rows
                lost = one_line(error)
                _log.warning("W&B: %s/ did not become an artifact (%s)", folder.name, lost)
        self._end()
        self.failure = self.failure or lost

    def state(self) -> dict[str, Any]:
        """The W&B id and how many rows the run has had, for a checkpoint."""
        return {"run_id": self._run_id, **super().state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues the W&B run of a checkpoint."""
        super().restore(state)
        if not self._settled.of_agent:
            self._run_id = state["run_id"]

    def _open(self) -> None:
        with only_what_is_settled():
            try:
                self._run = self._connect(self._mode)
            except Exception as error:
                if self._mode is LoggerMode.offline or not self._falls_back:
                    raise
                _log.warning("W&B: no connection, the run stays offline (%s)", one_line(error))
                wandb_session.shut_down()  # the failed attempt still holds the run id
                self._mode = LoggerMode.offline
                self._run = self._connect(self._mode)
        self._next_step = self._run.starting_step
        where = self._run.url if self._mode is LoggerMode.online else self._run.settings.sync_dir
        offline = self._mode is LoggerMode.offline  # the end of the run says how to send it
        _log.info("W&B %s: %s", self._mode.value, where, extra=FOR_THE_RECORD if offline else None)

    def _connect(self, mode: LoggerMode) -> Any:
        settled = self._settled
        return wandb_session.connect(
            mode,
            self._folder,
            self._finish_seconds,
            project=redact(settled.project),
            entity=settled.entity,
            tags=[redact(tag) for tag in settled.tags],
            group=None if settled.group is None else redact(settled.group),
            name=redact(settled.name),
            notes=None if settled.notes is None else redact(settled.notes),
            job_type=settled.job_type,
            id=self._run_id,
            config=dict(self._config),
        )

    def _write(self, step: int, values: dict[str, float], seconds: float) -> None:
        self._move_to(step)
        self._pending |= values
        loss = values.get(_LOSS, math.nan)
        if self._best is None or loss < self._best[0]:
            self._best = self._best if math.isnan(loss) else (loss, step)

    def _move_to(self, step: int) -> None:
        """Sends the step before, if this is another."""
        if step != self._step:
            self._flush()
        self._step = step

    def _flush(self) -> None:
        if self._samples:
            self._pending["samples"] = wandb_session.to_page("\n".join(self._samples))
        if self._pending and self._step >= self._next_step:
            self._run.log(self._pending, step=self._step, commit=True)
            self._next_step = self._step + 1
            self._sent_steps += 1
        self._pending, self._samples = {}, []

    def _end(self) -> None:
        super().on_finish(self._status or "failed")
        if self.failure is not None and self._mode is not LoggerMode.disabled:
            wandb_session.shut_down()  # a service that failed before would end in a traceback at exit

    def _close(self, status: str) -> None:
        self._flush()
        summary: dict[str, Any] = {"status": status}
        if self._best is not None:
            summary |= {"best/validation_loss": self._best[0], "best/step": self._best[1]}
        self._run.summary.update(summary)
        self._run.finish(exit_code=int(_EXIT_CODES.get(status, ExitCode.BUG)))
        if self.sync_command:  # the end of the run tells it
            _log.info("W&B: send this run with: %s", self.sync_command, extra=FOR_THE_RECORD)


def _recorded(folder: Path) -> dict[str, Any]:
    """What an earlier start of the run recorded, or {}."""
    loggers = (read_record(folder / "run.json") or {}).get("logger")
    found = loggers.get("logger") if isinstance(loggers, dict) else None
    return found if isinstance(found, dict) else {}


def _artifact_name(name: str, folder: Path) -> str:
    """A name that W&B takes: letters, digits, `_`, `-` and `.` only."""
    return re.sub(r"[^\w.-]", "-", f"{name}-{folder.name}")[-128:]
