"""The folder of one run: everything that is needed later to understand, resume and reproduce it.

    config.yaml      the resolved config            metrics.jsonl  the truth about the numbers
    overrides.yaml   what the command line said     samples.md     what the model wrote
    run.json         where the run comes from       loss.png       the picture of metrics.jsonl
    git.diff         uncommitted changes, if any    summary.json   how the run ended
    train.log        what it told                   checkpoints/  adapter/  model/  wandb/

`summary.json` has `status` running, finished, preempted, interrupted or failed; a run that was killed stays `running`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from llama_exp.console import logs
from llama_exp.errors import ConfigError, ExitCode, Interrupted, LlamaExpError, Preempted, Problem
from llama_exp.files.lock import FolderLock
from llama_exp.files.metrics_file import MetricsFile, Samples, read_metrics
from llama_exp.files.redact import redact_arguments
from llama_exp.files.writing import make_folder, plain, restrict_umask, storage_errors, write_json, write_text
from llama_exp.run import figures as report
from llama_exp.run import provenance

_ARTEFACTS = ("run.json", "config.yaml", "overrides.yaml", "metrics.jsonl", "samples.md", "summary.json", "loss.png")
_STEP_FOLDER = re.compile(r"^step-(\d+)$")
_log = logging.getLogger(__name__)


class RunFolder:
    """An owned run folder; `create` or `reopen` one, and use it in a `with` block.

    The block's end writes `summary.json` and `loss.png`, from the exception if there is one, and releases the folder.
    From construction on, whatever this process creates is writable by its owner only.

    Attributes:
        path: the folder.
        metrics, samples: observers that write `metrics.jsonl` and `samples.md`.
        checkpoints, adapter, model, wandb: paths for those who write them.
    """

    def __init__(self, path: Path, lock: FolderLock):
        self.path = path
        self.metrics = MetricsFile(path / "metrics.jsonl")
        self.samples = Samples(path / "samples.md")
        self.checkpoints = path / "checkpoints"
        self.adapter = path / "adapter"
        self.model = path / "model"
        self.wandb = path / "wandb"
        self._lock = lock
        self._record: dict[str, Any] = {}
        self._started = time.monotonic()
        self._finished = False
        self._log_file = logs.LogFile(path / "train.log")
        logs.attach(self._log_file)
        if lock.dead_owner is not None:
            pid, host, started = (lock.dead_owner[key] for key in ("pid", "host", "started"))
            message = "taking over %s: its owner (pid %s on %s, started %s) died without releasing it"
            _log.warning(message, path, pid, host, started)

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new run in a folder that holds none; the folder may exist.

        Raises:
            ConfigError: the folder holds a run already.
            BusyError: another process is making a run there.
            StorageError: it cannot be written.
        """
        lock = _own(path)
        present = [name for name in _ARTEFACTS if (path / name).exists()]
        if present:
            lock.release()
            action = "continue it with resume=auto, or choose another folder with hydra.run.dir=<folder>"
            problem = Problem(
                "the folder holds a run already", "hydra.run.dir", f"{path}: {', '.join(present)}", action
            )
            raise ConfigError(problem)
        return _or_release(cls, path, lock)

    @classmethod
    def reopen(cls, path: Path) -> RunFolder:
        """The run that was begun in the folder (see `holds_run`), to continue it.

        Raises:
            BusyError: another process is at it.
            StorageError: the folder cannot be written.
        """
        return _or_release(cls, path, _own(path))

    @staticmethod
    def holds_run(path: Path) -> bool:
        """Whether a run was begun in the folder."""
        return (path / "run.json").is_file()

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
        facts, patch = provenance.collect(arguments, source)
        record_file = self.path / "run.json"
        earlier = _read_record(record_file) or {}
        start = {"time": _now(), "command": facts["command"], "host": facts["host"]}
        if earlier:
            start["changed"] = _changes(earlier, plain({**facts, "config_hash": config_hash}))
        self._record = {**earlier, "schema": 1, "config_hash": config_hash, **facts}
        self._record["starts"] = [*earlier.get("starts", []), start]
        write_json(record_file, self._record)
        number = len(self._record["starts"])
        self._replace("config.yaml", _yaml(plain(config)), number)
        self._replace("overrides.yaml", _yaml(redact_arguments(overrides)), number)
        self._replace("git.diff", patch, number)
        write_json(self.path / "summary.json", {"status": "running", "started": start["time"]})

    def record(self, **facts: Any) -> None:
        """Adds facts to `run.json` as they become known: backend, device, seeds, fingerprints, preset digest."""
        self._record.update(facts)
        write_json(self.path / "run.json", self._record)

    def finish(self, error: BaseException | None = None, **results: Any) -> dict[str, Any]:
        """Writes `summary.json` and `loss.png`; the first call counts.

        Args:
            error: what ended the run; None: it finished.
            **results: further entries of the summary.

        Returns:
            The summary: status, exit_code, reason, started, finished, seconds, figures of the metrics, results.
        """
        if self._finished:
            return _read_json(self.path / "summary.json") or {}
        self._finished = True
        status, exit_code = outcome(error)
        summary = {"status": status, "exit_code": int(exit_code), "reason": _reason(error)}
        started = self._record["starts"][-1]["time"] if self._record else None
        summary |= {"started": started, "finished": _now(), "seconds": round(time.monotonic() - self._started, 3)}
        try:
            rows = read_metrics(self.path / "metrics.jsonl")
            summary |= report.figures(rows)
            if rows:
                report.write_plot({self.path.name: rows}, self.path / "loss.png")
        except Exception as failure:  # a picture is no reason to lose a run
            _log.warning("metrics.jsonl could not be summarised or drawn: %s", failure)
        summary |= results
        write_json(self.path / "summary.json", summary)
        return _read_json(self.path / "summary.json") or {}

    def close(self) -> None:
        """Closes the log and releases the folder."""
        logs.detach(self._log_file)
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        try:
            if error is None:
                self.finish()
            else:  # what ended the run matters more than that its summary cannot be written either
                bug = outcome(error)[1] is ExitCode.BUG
                self._log_file.note_error(_reason(error) or "", error if bug else None)
                with contextlib.suppress(LlamaExpError):
                    self.finish(error)
        finally:
            self.close()

    def _replace(self, name: str, text: str | None, start: int) -> None:
        """Writes a file of this start (None: no file); an earlier start's that differs is kept, with its number."""
        file = self.path / name
        with storage_errors(file):
            if file.exists() and file.read_text(encoding="utf-8") != text:
                file.rename(file.with_name(f"{file.stem}.{start - 1}{file.suffix}"))
        if text is not None:
            write_text(file, text)


def outcome(error: BaseException | None) -> tuple[str, ExitCode]:
    """Status and exit code of a run that ended with this exception, or with none."""
    if error is None:
        return "finished", ExitCode.OK
    if isinstance(error, Preempted):
        return "preempted", ExitCode.PREEMPTED
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "interrupted", ExitCode.INTERRUPTED
    return "failed", error.exit_code if isinstance(error, LlamaExpError) else ExitCode.BUG


def find_unfinished(root: Path, config_hash: str) -> Path | None:
    """The run under `root` with this hash that has not finished and got farthest; None if there is none.

    Looks at runs directly in `root` and in the sweep folders there. Farthest: the highest checkpointed step, then the
    latest recorded start; file times do not count, because copies and clocks change them.
    """
    candidates = []
    for record_file in [*root.glob("*/run.json"), *root.glob("*/*/run.json")]:
        folder = record_file.parent
        record = _read_record(record_file)
        if record is None:
            _log.warning("%s is no whole record; its run is left alone", record_file)
        elif record.get("config_hash") == config_hash:
            summary = _read_json(folder / "summary.json") or {}
            if summary.get("status") != "finished":
                candidates.append((_last_step(folder), record["starts"][-1]["time"], str(folder)))
    return Path(max(candidates)[2]) if candidates else None


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10**9)


def _own(path: Path) -> FolderLock:
    restrict_umask()
    make_folder(path)
    return FolderLock(path)


def _or_release(cls: type[RunFolder], path: Path, lock: FolderLock) -> RunFolder:
    try:
        return cls(path, lock)
    except BaseException:
        lock.release()
        raise


def _last_step(folder: Path) -> int:
    names = [entry.name for entry in (folder / "checkpoints").glob("step-*")]
    return max((int(match.group(1)) for name in names if (match := _STEP_FOLDER.match(name))), default=-1)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Key -> [value before, value now] for what differs, one level into nested sections."""
    changes: dict[str, Any] = {}
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            for name in sorted(value.keys() | old.keys()):
                if value.get(name) != old.get(name):
                    changes[f"{key}.{name}"] = [old.get(name), value.get(name)]
        elif value != old:
            changes[key] = [old, value]
    return changes


def _reason(error: BaseException | None) -> str | None:
    if error is None:
        return None
    return str(error) if isinstance(error, LlamaExpError) else f"{type(error).__name__}: {error}"


def _read_record(path: Path) -> dict[str, Any] | None:
    """What `run.json` says of a run that was begun at least once; None if it is none or damaged."""
    record = _read_json(path) or {}
    starts = record.get("starts")
    is_whole = isinstance(starts, list) and all(isinstance(start, dict) for start in starts)
    return record if is_whole and starts and isinstance(starts[-1].get("time"), str) else None


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is none."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
