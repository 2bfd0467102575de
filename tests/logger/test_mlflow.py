"""MLflow's file store, read back by its own client; where it is installed."""

import pytest
from mirror import expected_rows, report

from llama_exp.files.metrics_file import MetricsFile
from llama_exp.files.writing import write_json
from llama_exp.logger import MlflowLogger
from llama_exp.logger.mlflow import _SETTINGS

pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def own_settings(monkeypatch, tmp_path):
    for name, value in _SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


def make(folder, uri=None, **more):
    folder.mkdir(exist_ok=True)
    write_json(folder / "run.json", {"config_hash": "h", "starts": [{"time": "t"}]})
    return [MetricsFile(folder / "metrics.jsonl"), MlflowLogger(uri, "trials", folder=folder, name="n/run", **more)]


def read(tmp_path):
    """The only run, and step -> figures; fails if a step of a metric occurs twice."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / "outputs/mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("trials").experiment_id])
    steps = {}
    for key in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, key):
            assert key not in steps.setdefault(metric.step, {})
            steps[metric.step][key] = metric.value
    return run, steps


def finish(watching):
    for observer in watching:
        observer.on_finish("finished")


def test_the_store_has_the_record(tmp_path):
    folder = tmp_path / "run"
    watching = make(folder, group="sweep", config={"lora.rank": 8, "hub.token": "canary", "long": "x" * 900})
    report(watching, range(6))
    finish(watching)
    run, steps = read(tmp_path)
    assert steps == expected_rows(folder)
    assert run.data.params == {"lora.rank": "8", "long": "x" * 500}
    assert (run.data.tags["group"], run.data.tags["status"], run.info.status) == ("sweep", "finished", "FINISHED")
    assert run.info.run_name == "n/run"


def test_a_resume_continues_the_run_without_doubled_steps(tmp_path):
    folder = tmp_path / "run"
    first = make(folder)
    report(first, range(6))
    states = [observer.state() for observer in first]
    report(first, range(6, 8))  # and is killed
    second = make(folder)
    for observer, state in zip(second, states, strict=True):
        observer.restore(state)
    report(second, range(6, 10))
    finish(second)
    assert read(tmp_path)[1] == expected_rows(folder)


def test_a_server_that_is_not_there_is_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    watching = make(tmp_path / "run", "http://127.0.0.1:9")
    report(watching, range(6))
    finish(watching)
    ours = [record for record in caplog.records if record.name.startswith("llama_exp")]
    assert len(ours) == 1 and ours[0].getMessage().startswith("MLflow: log failed")
    assert len(expected_rows(tmp_path / "run")) == 6
