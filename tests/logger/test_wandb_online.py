"""The W&B mirror online: real clients against a server on the loopback, healthy, sick and absent; secrets."""

import os
import subprocess
import sys
import time

import pytest
import wandb_reader
from fake_wandb import API_KEY, FakeWandb
from mirror import (
    CONFIG,
    expected_rows,
    finish,
    mirrored_rows,
    observers,
    offline_run,
    own_wandb,  # noqa: F401 (a fixture)
    report,
)

from llama_exp.config.identity import flatten
from llama_exp.files.metrics_file import read_metrics
from llama_exp.logger import wandb_session


@pytest.fixture
def fake(monkeypatch):
    with FakeWandb() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


def test_online_the_server_has_what_the_record_has(tmp_path, fake):
    folder = tmp_path / "run"
    watching = observers(folder, "online", run_id="id123")
    report(watching, range(10))
    finish(watching, "preempted")
    assert mirrored_rows(fake.history("id123")) == expected_rows(folder)
    assert fake.config("id123")["optimizer.learning_rate"] == 3e-4 and "hub.token" not in fake.config("id123")
    assert fake.exit_codes == {"id123": 75}
    assert fake.runs["id123"]["groupName"] == "sweep"
    assert watching[1].sync_command is None


def test_online_resume_fills_gaps_and_repeats_nothing(tmp_path, fake):
    folder = tmp_path / "run"
    first = observers(folder, "online", run_id="id123")
    report(first, range(8))
    states = [observer.state() for observer in first]
    report(first, range(8, 11))
    finish(first, "preempted")
    # A crash: the server lacks what was reported last, and also some of what was reported before the checkpoint.
    del fake.streams["id123"]["wandb-history.jsonl"][5:]
    fake.streams["id123"]["wandb-summary.json"] = ['{"_step": 4}']
    second = observers(folder, "online")
    for observer, state in zip(second, states, strict=True):
        observer.restore(state)
    report(second, range(8, 14))
    finish(second)
    assert mirrored_rows(fake.history("id123")) == expected_rows(folder)
    assert sorted(expected_rows(folder)) == list(range(14))


def test_online_resume_skips_steps_that_the_server_has(tmp_path, fake):
    folder = tmp_path / "run"
    first = observers(folder, "online", run_id="id123")
    report(first, range(6))
    states = [observer.state() for observer in first]
    report(first, range(6, 10))
    finish(first, "preempted")
    second = observers(folder, "online")
    for observer, state in zip(second, states, strict=True):
        observer.restore(state)
    report(second, range(6, 13))
    finish(second)
    assert mirrored_rows(fake.history("id123")) == expected_rows(folder)


@pytest.mark.process
def test_offline_run_can_be_synced_later(tmp_path, fake):
    folder = tmp_path / "run"
    watching = observers(folder, run_id="later")
    report(watching, range(6))
    finish(watching)
    assert fake.history("later") == []
    environment = {**os.environ, "WANDB_MODE": "online"}
    (attempt,) = (folder / "wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "sync", str(attempt)]
    finished = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    assert mirrored_rows(fake.history("later")) == expected_rows(folder)


@pytest.mark.parametrize("behaviour", [500, 401, 429, "hang", "reset", "slow"])
def test_a_sick_server_costs_bounded_time_and_the_run_goes_offline(tmp_path, fake, monkeypatch, caplog, behaviour):
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT_SECONDS", 0.7)
    monkeypatch.setattr(wandb_session, "FINISH_TIMEOUT_SECONDS", 0.7)
    fake.behaviour = behaviour
    folder = tmp_path / "run"
    watching = observers(folder, "online", run_id="id123")
    start = time.monotonic()
    report(watching, range(6))
    finish(watching)
    assert time.monotonic() - start < 15
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert "stays offline" in caplog.text and API_KEY not in caplog.text
    run = offline_run(folder)
    assert run.run_id == "id123" and mirrored_rows(run.history) == expected_rows(folder)
    assert watching[1].sync_command == f"llama-exp sync {folder}"


@pytest.mark.parametrize(
    "behaviour", [500, *(pytest.param(behaviour, marks=pytest.mark.slow) for behaviour in (429, "hang", "reset"))]
)
def test_a_server_that_falls_sick_later_costs_bounded_time(tmp_path, fake, monkeypatch, caplog, behaviour):
    monkeypatch.setattr(wandb_session, "FINISH_TIMEOUT_SECONDS", 1.0)
    folder = tmp_path / "run"
    watching = observers(folder, "online", run_id="id123")
    report(watching, range(3))
    fake.behaviour = behaviour
    start = time.monotonic()
    report(watching, range(3, 100))
    assert time.monotonic() - start < 2
    finish(watching)
    assert time.monotonic() - start < 10
    assert len(read_metrics(folder / "metrics.jsonl")) == 124
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "W&B: finish failed" in warning and watching[1].sync_command == f"llama-exp sync {folder}"
    (run,) = (folder / "wandb").glob("run-*")
    while mirrored_rows(wandb_reader.read(run).history) != expected_rows(folder):  # written by W&B's own process
        assert time.monotonic() - start < 30
        time.sleep(0.05)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://nowhere.invalid"])
def test_no_server_at_all(tmp_path, monkeypatch, caplog, url):
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT_SECONDS", 0.7)
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    watching = observers(tmp_path / "run", "online")
    start = time.monotonic()
    report(watching, range(3))
    finish(watching)
    assert time.monotonic() - start < 10
    assert mirrored_rows(offline_run(tmp_path / "run").history) == expected_rows(tmp_path / "run")


def test_no_secret_reaches_wandb(tmp_path, fake, monkeypatch):
    for name in ("HF_TOKEN", "KAGGLE_KEY"):
        monkeypatch.setenv(name, f"canary-{name}")
    monkeypatch.setattr(sys, "argv", ["train.py", "wandb.api_key=canary-argument"])
    config = {**flatten(CONFIG), "note": "canary-HF_TOKEN", "password": "canary-password"}
    for mode in ("online", "offline"):
        folder = tmp_path / mode
        named = {"name": "canary-KAGGLE_KEY", "group": "canary-HF_TOKEN", "tags": ["a", "canary-KAGGLE_KEY"]}
        watching = observers(folder, mode, config=config, **named)
        watching[1].on_start({"path": "canary-KAGGLE_KEY"})
        report(watching, range(3))
        watching[1].on_sample(2, "canary-HF_TOKEN", "canary-KAGGLE_KEY")
        finish(watching)
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert len(files) >= 6
        for file in files:
            assert b"canary" not in file.read_bytes() and API_KEY.encode() not in file.read_bytes(), file
    assert len(fake.requests) >= 4
    for method, path, body in fake.requests:
        assert b"canary" not in body and API_KEY.encode() not in body, (method, path)


def test_a_run_of_wandb_agent_is_the_agents(tmp_path, fake, monkeypatch):
    """Its id, in the project of its sweep and part of it; online without a word, for that was asked."""
    agent = {"SWEEP_ID": "sw", "RUN_ID": "id9", "PROJECT": "of-the-sweep", "ENTITY": "me"}
    for name, value in agent.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    watching = observers(tmp_path / "run", None)
    watching[1].restore({"run_id": "of a checkpoint", "rows": 0})
    report(watching, range(3))
    finish(watching)
    assert mirrored_rows(fake.history("id9")) == expected_rows(tmp_path / "run")
    assert (fake.runs["id9"]["sweep"], fake.runs["id9"]["project"]) == ("sw", "of-the-sweep")
    assert list(fake.runs) == ["id9"]


def test_large_and_foreign_texts_do_no_harm(tmp_path, fake, caplog):
    """A sample of a megabyte, a thousand metrics in a row, names in any script."""
    long = "ä" * 500_000
    watching = observers(
        tmp_path / "run", "online", run_id="id1", name="läuft 実験", tags=["größe"], config={"a": long}
    )
    report(watching, range(2))
    wide = {"step": 2, "split": "train", "loss": 1.0, "seconds": 1.0}
    wide |= {f"größe_{number}": float(number) for number in range(1000)}
    for observer in watching:
        observer.on_metrics(wide)
    watching[1].on_sample(2, long, "実験")
    finish(watching)
    assert "WARNING" not in [record.levelname for record in caplog.records]
    assert mirrored_rows(fake.history("id1")) == expected_rows(tmp_path / "run")
    assert (fake.runs["id1"]["displayName"], fake.runs["id1"]["tags"]) == ("läuft 実験", ["größe"])
    assert fake.config("id1")["a"] == long


def test_the_model_is_an_artifact_of_the_server(tmp_path, fake):
    folder = tmp_path / "run"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter.json").write_text("{}")
    watching = observers(folder, "online", run_id="id1", log_model=True)
    report(watching, range(3))
    finish(watching)
    assert fake.exit_codes == {}  # the run is not over before its model is written
    watching[1].on_export(folder / "adapter")
    assert fake.artifacts == {"the-run-adapter": {"type": "adapter", "state": "COMMITTED"}}
    assert fake.exit_codes == {"id1": 0} and mirrored_rows(fake.history("id1")) == expected_rows(folder)


@pytest.mark.parametrize("exported", [True, False])
def test_without_the_model_the_rows_go_all_the_same(tmp_path, fake, monkeypatch, caplog, exported):
    """The artifact breaks, or the export did and there is none."""
    monkeypatch.setattr(wandb_session, "log_folder", lambda *_: 1 / 0)
    watching = observers(tmp_path / "run", "online", run_id="id1", log_model=True)
    report(watching, range(3))
    finish(watching)
    watching[1].on_export(tmp_path / "run" / "model" if exported else None)
    assert fake.exit_codes == {"id1": 0} and mirrored_rows(fake.history("id1")) == expected_rows(tmp_path / "run")
    assert [record.levelname for record in caplog.records].count("WARNING") == exported
