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


@pytest.mark.parametrize("behaviour", [500, 401, "hang"])
def test_a_sick_server_costs_bounded_time_and_the_run_goes_offline(tmp_path, fake, monkeypatch, caplog, behaviour):
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT_SECONDS", 1.5)
    monkeypatch.setattr(wandb_session, "FINISH_TIMEOUT_SECONDS", 1.5)
    monkeypatch.delenv("WANDB_MODE", raising=False)  # a warning of its own
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


@pytest.mark.parametrize("behaviour", [500, "hang"])
def test_a_server_that_falls_sick_later_costs_bounded_time(tmp_path, fake, monkeypatch, behaviour):
    monkeypatch.setattr(wandb_session, "FINISH_TIMEOUT_SECONDS", 1.5)
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
    (run,) = (folder / "wandb").glob("run-*")
    while mirrored_rows(wandb_reader.read(run).history) != expected_rows(folder):  # written by W&B's own process
        assert time.monotonic() - start < 30
        time.sleep(0.05)


def test_no_server_at_all(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT_SECONDS", 1.5)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
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
