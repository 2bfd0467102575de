"""The run in MLflow: a tracking server, or files below `outputs/mlruns`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.files.redact import redact
from llama_exp.limits.logger import MLFLOW
from llama_exp.logger.mirror import Mirror, identify

DEFAULT_FOLDER = "outputs/mlruns"
# A server that does not answer may cost a row this much, and no more; MLflow's own defaults are minutes.
_BOUNDS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
# Nothing is sent to MLflow's makers, and its file store, which it would have replaced by a database, may be used.
_SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true", **_BOUNDS}
# The tag by which a run that goes on, or is sent once more, finds itself.
_IDENTITY = "llama_exp.run"
_LONGEST_PARAMETER = 500
_MOST_PARAMETERS = 100  # of one request
_STATUS = {"finished": "FINISHED", "preempted": "KILLED", "pruned": "KILLED", "interrupted": "KILLED"}


class MlflowLogger(Mirror):
    """Observer that mirrors the run in MLflow: configuration as parameters, figures as metrics, samples not at all.

    Args:
        tracking_uri: where MLflow keeps runs, `http://...` or `file:...`; None: MLFLOW_TRACKING_URI, else files below
            `outputs/mlruns`.
        experiment: the MLflow experiment that the run belongs to.
        folder, name, group, config: as of every mirror; the group becomes the tag `group`.
    """

    def __init__(
        self,
        tracking_uri: str | None,
        experiment: str,
        *,
        folder: Path,
        name: str,
        group: str | None = None,
        config: Mapping[str, Any] | None = None,
    ):
        super().__init__("MLflow", folder, name, group, config)
        MLFLOW.require(tracking_uri=tracking_uri, experiment=experiment)
        default = Path(DEFAULT_FOLDER).absolute().as_uri()
        self._tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default
        self._experiment = experiment
        self._identity = identify(self._folder)
        self._run_id: str | None = None
        self._sent_rows = 0
        self._client: Any = None
        self._zero: float | None = None  # the clock at the run's start
        self._last_steps: dict[str, int] = {}  # of what MLflow has already, by metric

    @property
    def outcome(self) -> str:
        """What was written where."""
        return f"{self._sent_rows} rows to {redact(self._tracking_uri)}"

    def _open(self) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=self._tracking_uri)
        experiment = self._client.get_experiment_by_name(self._experiment)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(self._experiment)
        found = self._find_run(experiment_id)
        if found is not None:
            self._run_id = found.info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            for key in found.data.metrics:
                steps = (metric.step for metric in self._client.get_metric_history(self._run_id, key))
                self._last_steps[key] = max(steps, default=-1)
            return
        tags = {"group": self._group, _IDENTITY: self._identity}
        tags = {key: redact(value) for key, value in tags.items() if value is not None}
        self._run_id = self._client.create_run(experiment_id, run_name=redact(self._name), tags=tags).info.run_id
        self._write_parameters()

    def _find_run(self, experiment_id: str) -> Any:
        """The run of an earlier start, or of an earlier `llama-exp sync`; None: there is none."""
        if self._identity is None:
            return None
        found = self._client.search_runs([experiment_id], f"tags.`{_IDENTITY}` = '{self._identity}'", max_results=1)
        return next(iter(found), None)

    def _write_parameters(self) -> None:
        from mlflow.entities import Param

        texts = {key: redact(str(value))[:_LONGEST_PARAMETER] for key, value in self._config.items()}
        parameters = [Param(key, text) for key, text in texts.items()]
        for start in range(0, len(parameters), _MOST_PARAMETERS):
            self._client.log_batch(self._run_id, params=parameters[start : start + _MOST_PARAMETERS])

    def _write(self, step: int, values: dict[str, float], seconds: float) -> None:
        from mlflow.entities import Metric

        if self._zero is None:
            self._zero = time.time() - seconds
        clock = int((self._zero + seconds) * 1000)
        lacking = {key: value for key, value in values.items() if step > self._last_steps.get(key, -1)}
        if lacking:
            metrics = [Metric(key, float(value), clock, step) for key, value in lacking.items()]
            self._client.log_batch(self._run_id, metrics=metrics)
            self._sent_rows += 1

    def _close(self, status: str) -> None:
        self._client.set_tag(self._run_id, "status", status)
        self._client.set_terminated(self._run_id, _STATUS.get(status, "FAILED"))
