"""The folder of one run: everything that is needed later to understand, resume and reproduce it.

    config.yaml      the resolved config            metrics.jsonl  the truth about the numbers
    overrides.yaml   what the command line said     samples.md     what the model wrote
    run.json         where the run comes from       loss.png       the picture of metrics.jsonl
    git.diff         uncommitted changes, if any    summary.json   how the run ended
    sources.json     digests of the package's files train.log      what it told
    evaluation.jsonl, evaluation/  rows and items   profile/       for TensorBoard, where it was asked for
    checkpoints/  adapter/  model/  wandb/

`summary.json` has `status` running, finished, preempted, interrupted, pruned or failed; a run that was killed stays at
`running`.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from llama_exp import signals
from llama_exp.console import logs
from llama_exp.errors import BusyError, ConfigError, ExitCode, Interrupted, LlamaExpError, Preempted, Problem, Pruned
from llama_exp.files.evaluation_file import FOLDER, ROWS, EvaluationFile
from llama_exp.files.json_file import read_record
from llama_exp.files.json_text import dump_json, plain
from llama_exp.files.kept_folder import KeptFolder
from llama_exp.files.lock import FolderLock
from llama_exp.files.metrics_file import MetricsFile, Samples, read_metrics
from llama_exp.files.process import ALONE, Process
from llama_exp.files.redact import redact, redact_arguments
from llama_exp.files.writing import (
    make_folder,
    move,
    refuse_links,
    restrict_umask,
    storage_errors,
    write_json,
    write_text,
)
from llama_exp.run import discard, figures, provenance, sources
from llama_exp.run.recorded import find_changes, tell_other_code
from llama_exp.run.unfinished import RECORD_FILE, last_step, read_run_record

_ARTEFACTS: tuple[str, ...] = (RECORD_FILE, "config.yaml", "overrides.yaml", "metrics.jsonl", "metrics.csv")
_ARTEFACTS += ("samples.md", ROWS, "summary.json", "loss.png")
_FOLDERS = (FOLDER, "checkpoints", "adapter", "model", "profile", "wandb", "tensorboard")
SOURCES_FILE = "sources.json"
_log = logging.getLogger(__name__)


class RunFolder:
    """An owned run folder; `create` or `reopen` one, and use it in a `with` block.

    The block's end writes `summary.json` and `loss.png`, from the exception if there is one, and releases the folder.
    From construction on, whatever this process creates is writable by its owner only. In a process that is not the
    run's writer all of it stays in memory: such a folder neither makes nor locks nor writes anything.

    Attributes:
        path: the folder.
        kept: observer that ends the run when its folder is deleted or moved, for the writer.
        metrics, samples, evaluations: observers that write `metrics.jsonl`, `samples.md` and `evaluation.jsonl`, for
        the writer.
        checkpoints, adapter, model, wandb: paths for those who write them.
    """

    def __init__(self, path: Path, process: Process):
        self.path = path
        self.kept = KeptFolder(path)
        self.metrics = MetricsFile(path / "metrics.jsonl")
        self.samples = Samples(path / "samples.md")
        self.evaluations = EvaluationFile(path / ROWS)
        self.checkpoints = path / "checkpoints"
        self.adapter = path / "adapter"
        self.model = path / "model"
        self.wandb = path / "wandb"
        self._is_writer = process.is_writer
        self._record: dict[str, Any] = {}
        self._started = time.monotonic()
        self._finished = False
        self._lock: FolderLock | None = None
        self._log_file: logs.LogFile | None = None
        self._is_new = False
        self._is_fruitless = False

    @classmethod
    def create(cls, path: Path, process: Process = ALONE) -> RunFolder:
        """A new run in a folder that holds none; the folder may exist.

        Args:
            path: the folder.
            process: which of the run's processes this is.

        Raises:
            ConfigError: the folder holds a run already.
            BusyError: another process is making a run there.
            StorageError: it cannot be written.
        """
        folder = cls(path, process)
        folder._is_new = process.is_writer and discard.is_empty(path)
        folder._own()
        present = [name for name in _ARTEFACTS if (path / name).exists()] if process.is_writer else []
        if present:
            folder.close()
            go_on = "continue it with resume=auto" if cls.holds_run(path) else f"put its {RECORD_FILE} back to go on"
            action = f"{go_on}, or choose another folder with hydra.run.dir=<folder>"
            problem = Problem(
                "the folder holds a run already", "hydra.run.dir", f"{path}: {', '.join(present)}", action
            )
            raise ConfigError(problem)
        folder._open_log()
        return folder

    @classmethod
    def create_beside(cls, path: Path, process: Process = ALONE) -> RunFolder:
        """As `create`; where the folder is another run's already, in `<name>-2` or the next that is free.

        The name of a folder that nobody chose has the second of the start in it, which two starts can share.
        """
        number = 1
        while True:
            try:
                return cls.create(path if number == 1 else path.with_name(f"{path.name}-{number}"), process)
            except (BusyError, ConfigError):
                number += 1

    @classmethod
    def reopen(cls, path: Path, process: Process = ALONE) -> RunFolder:
        """The run that was begun in the folder (see `holds_run`), to continue it.

        Args:
            path: the folder.
            process: which of the run's processes this is.

        Raises:
            BusyError: another process is at it.
            StorageError: the folder cannot be written.
        """
        folder = cls(path, process)
        folder._own()
        folder._open_log()
        return folder

    @staticmethod
    def holds_run(path: Path) -> bool:
        """Whether a run was begun in the folder; its record may be damaged."""
        return (path / RECORD_FILE).exists()

    def begin(
        self,
        config: Mapping[str, Any],
        overrides: Sequence[str],
        arguments: Sequence[str],
        config_hash: str,
        source: Path | None = None,
    ) -> None:
        """Writes what is known before training: config, overrides, provenance, status `running`.

        Args:
            config: the resolved config as plain containers.
            overrides: the overrides of the command line.
            arguments: `sys.argv`.
            config_hash: names the experiment; same hash, same science.
            source: the folder whose git state is recorded; by default this package.
        """
        if not self._is_writer:
            return
        facts, patch = provenance.collect(arguments, source)
        earlier = read_run_record(self.path) or {}
        start = {"time": _now(), "command": facts["command"], "host": facts["host"]}
        if earlier:
            start["changed"] = find_changes(earlier, plain({**facts, "config_hash": config_hash}))
        self._record = {**earlier, "schema": 1, "config_hash": config_hash, **facts}
        self._record["starts"] = [*earlier.get("starts", []), start]
        write_json(self.path / RECORD_FILE, self._record)
        number = len(self._record["starts"])
        self._replace("config.yaml", _yaml(plain(config)), number)
        self._replace("overrides.yaml", _yaml(redact_arguments(overrides)), number)
        self._replace(SOURCES_FILE, dump_json(sources.list_sources(), indent=1) + "\n", number)
        is_patched_otherwise = self._replace("git.diff", patch, number)
        if earlier:
            tell_other_code(earlier, facts, is_patched_otherwise)
        write_json(self.path / "summary.json", {"status": "running", "started": start["time"]})

    @property
    def known(self) -> Mapping[str, Any]:
        """What `run.json` says by now, or would say if this process wrote it."""
        return self._record

    def record(self, **facts: Any) -> None:
        """Adds facts to `run.json` as they become known: backend, device, seeds, fingerprints, preset digest."""
        self._record.update(facts)
        if self._is_writer:
            write_json(self.path / RECORD_FILE, self._record)

    def finish(self, error: BaseException | None = None, **results: Any) -> dict[str, Any]:
        """Writes `summary.json` and `loss.png`; the first call counts.

        Args:
            error: what ended the run; None: it finished.
            **results: further entries of the summary.

        Returns:
            The summary: status, exit_code, reason, started, finished, seconds, figures of the metrics, results; of
            these the first three where this process is not the writer.

        Raises:
            StorageError: it cannot be written, or the folder is no longer there.
        """
        signals.only_note()  # a signal that comes now must not leave the summary at `running`
        status, exit_code = outcome(error)
        summary = {"status": status, "exit_code": int(exit_code), "reason": _reason(error)}
        if not self._is_writer:
            return summary
        if self._finished:
            return read_record(self.path / "summary.json") or {}
        self.kept.require()
        self._finished = True
        started = self._record["starts"][-1]["time"] if self._record else None
        summary |= {"started": started, "finished": _now(), "seconds": round(time.monotonic() - self._started, 3)}
        try:
            rows = read_metrics(self.path / "metrics.jsonl")
            summary |= figures.figures(rows, last_step(self.path))
            if rows:
                figures.write_plot({self.path.name: rows}, self.path / "loss.png")
        except Exception as failure:  # a picture is no reason to lose a run
            _log.warning("metrics.jsonl could not be summarised or drawn: %s", failure)
        for key, value in {**self.metrics.reached, **results}.items():
            known: Any = summary.get(key)
            is_nested = isinstance(value, Mapping) and isinstance(known, Mapping)
            summary[key] = {**known, **value} if is_nested else value
        write_json(self.path / "summary.json", summary)
        return read_record(self.path / "summary.json") or {}

    def discard_if_fruitless(self, error: LlamaExpError) -> None:
        """Has `close` remove a new folder that holds no step yet: what ended the run is told on the terminal.

        What a signal ended stays, for its summary says so; and so does a folder that held anything before.
        """
        stopped = isinstance(error, Preempted | Interrupted | Pruned)
        self._is_fruitless = self._is_new and not stopped and not discard.holds_steps(self.path)

    def close(self) -> None:
        """Closes the log and releases the folder."""
        if self._log_file is not None:
            logs.detach(self._log_file)
        if self._lock is not None:
            self._lock.release()
        if self._is_fruitless:
            discard.remove(self.path)

    def _own(self) -> None:
        """Makes the folder and locks it for this process."""
        if self._is_writer:
            restrict_umask()
            make_folder(self.path)
            refuse_links(self.path, (*_ARTEFACTS, *_FOLDERS, "git.diff", SOURCES_FILE, "train.log"))
            self._lock = FolderLock(self.path)
            self.kept.remember()

    def _open_log(self) -> None:
        if self._lock is None:
            return
        try:
            self._log_file = logs.LogFile(self.path / "train.log")
        except BaseException:
            self._lock.release()
            raise
        logs.attach(self._log_file)
        if self._lock.dead_owner is not None:
            pid, host, started = (self._lock.dead_owner[key] for key in ("pid", "host", "started"))
            message = "taking over %s: its owner (pid %s on %s, started %s) died without releasing it"
            _log.warning(message, self.path, pid, host, started)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        signals.only_note()
        try:
            if error is None:
                self.finish()
            else:  # what ended the run matters more than that its summary cannot be written either
                bug = outcome(error)[1] is ExitCode.BUG
                if self._log_file is not None:
                    self._log_file.note_error(_reason(error) or "", error if bug else None)
                with contextlib.suppress(LlamaExpError):
                    self.finish(error)
        finally:
            self.close()

    def _replace(self, name: str, text: str | None, start: int) -> bool:
        """Writes a file of this start (None: no file); an earlier start's that differs is kept, with its number.

        Returns:
            Whether the earlier start had another file, or one where this has none.
        """
        file = self.path / name
        with storage_errors(file):
            earlier = file.read_bytes() if file.exists() else b""
            is_another = earlier != b"" if text is None else earlier != redact(text).encode("utf-8", "backslashreplace")
            if is_another and earlier:
                move(file, file.with_name(f"{file.stem}.{start - 1}{file.suffix}"))
        if text is not None:
            write_text(file, text)
        return is_another


def outcome(error: BaseException | None) -> tuple[str, ExitCode]:
    """Status and exit code of a run that ended with this exception, or with none."""
    if isinstance(error, signals.Stopped):
        error = error.told("")
    if error is None:
        return "finished", ExitCode.OK
    if isinstance(error, Preempted | Pruned):
        return type(error).__name__.lower(), ExitCode.PREEMPTED
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "interrupted", ExitCode.INTERRUPTED
    return "failed", error.exit_code if isinstance(error, LlamaExpError) else ExitCode.BUG


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10**9)


def _reason(error: BaseException | None) -> str | None:
    if error is None:
        return None
    return str(error) if isinstance(error, LlamaExpError) else f"{type(error).__name__}: {error}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
