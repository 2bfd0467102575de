"""The W&B mirror offline: real run files read back, deaths of this process and of W&B's, credentials."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import types

import pytest
from fake_wandb import API_KEY
from mirror import (
    expected_rows,
    finish,
    make,
    mirrored_rows,
    observers,
    offline_run,
    own_wandb,  # noqa: F401 (a fixture)
    report,
    row,
)

from llama_exp.errors import ConfigError, ExitCode
from llama_exp.files.metrics_file import read_metrics
from llama_exp.limits.logger import LoggerMode
from llama_exp.logger import needed
from llama_exp.logger.needed import find_credential_problems


def test_offline_files_equal_the_record(tmp_path, caplog):
    caplog.set_level("INFO", "llama_exp")
    folder = tmp_path / "run"
    watching = observers(folder, run_id="id123")
    watching[1].on_start({"num_parameters": 7, "shapes": [1, 2]})
    report(watching, range(10))
    finish(watching)
    run = offline_run(folder)
    assert mirrored_rows(run.history) == expected_rows(folder)
    assert (run.run_id, run.name, run.group, run.project, run.tags) == ("id123", "the-run", "sweep", "proj", ["a", "b"])
    assert run.config == {
        "name": "x",
        "lora.rank": 8,
        "lora.targets": ["query", "value"],
        "optimizer.learning_rate": 3e-4,
        "facts.num_parameters": 7,
        "empty": {},
    }
    assert run.exit_code == 0
    panels = {entry["_step"] for entry in run.history if any(key.startswith("samples") for key in entry)}
    assert panels == {0, 4, 8}
    (page, *_) = (folder / "wandb").rglob("*.html")
    assert "<b>The &lt;zip&gt;</b> function" in page.read_text()
    command = watching[1].sync_command
    assert command == f"llama-exp sync {folder}" and command in caplog.text


def test_wandb_sees_what_is_settled_and_no_variable(tmp_path, monkeypatch, caplog):
    """Stated values win, the variables fill what is open; ids and W&B's own resume count for nothing."""
    counting = {"MODE": "disabled", "PROJECT": "other", "TAGS": "x,y"}  # all three are stated
    filling = {"NOTES": "noted", "JOB_TYPE": "kind", "RUN_GROUP": "grouped", "NAME": "named"}
    ignored = {"RUN_ID": "other", "RESUME": "must"}
    for name, value in (counting | filling | ignored).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    watching = observers(tmp_path / "run", run_id="id123")
    report(watching, range(2))
    settings = watching[1]._run.settings
    finish(watching)
    run = offline_run(tmp_path / "run")
    assert (run.run_id, run.name, run.group, run.project, run.tags) == ("id123", "named", "grouped", "proj", ["a", "b"])
    assert (settings.run_notes, settings.run_job_type, settings.sweep_id, settings.resume) == (
        "noted",
        "kind",
        None,
        None,
    )
    (line,) = [record.getMessage() for record in caplog.records if "does not count" in record.getMessage()]
    assert set(line.split(": ")[1].split(", ")) == {f"WANDB_{name}" for name in ignored}
    assert os.environ["WANDB_PROJECT"] == "other"


def test_the_summary_says_how_it_went(tmp_path):
    watching = observers(tmp_path / "run")
    for step, loss in [(0, 3.0), (4, 2.0), (8, math.nan), (12, 2.5)]:
        for observer in watching:
            observer.on_metrics(row(step, "validation", loss))
    finish(watching)
    summary = offline_run(tmp_path / "run").summary
    assert (summary["status"], summary["best/validation_loss"], summary["best/step"]) == ("finished", 2.0, 4)


@pytest.mark.parametrize("status", ["finished", "interrupted"])
def test_the_model_is_an_artifact_on_request(tmp_path, status):
    """Offline: a copy waits in the run's file. A run that was stopped has no model."""
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    (tmp_path / "run" / "adapter" / "adapter.json").write_text("{}")
    watching = observers(tmp_path / "run", log_model=True)
    report(watching, range(2))
    finish(watching, status)
    watching[1].on_export(tmp_path / "run" / "adapter")
    run = offline_run(tmp_path / "run")
    assert run.artifacts == ([("the-run-adapter", "adapter")] if status == "finished" else [])
    assert run.exit_code == (0 if status == "finished" else 130)


@pytest.mark.parametrize(("status", "code"), [("preempted", 75), ("pruned", 75), ("interrupted", 130), ("failed", 1)])
def test_the_exit_code_tells_how_it_ended(tmp_path, status, code):
    watching = observers(tmp_path / "run")
    report(watching, [0])
    finish(watching, status)
    assert offline_run(tmp_path / "run").exit_code == code


def test_nan_and_infinity_do_no_harm(tmp_path, caplog):
    watching = observers(tmp_path / "run")
    for step, loss in enumerate([math.nan, math.inf, -math.inf, 1.0]):
        for observer in watching:
            observer.on_metrics(row(step, loss=loss))
    finish(watching)
    history = offline_run(tmp_path / "run").history
    losses = [entry["train/loss"] for entry in history]
    assert str(losses[0]).lower() == "nan" and [float(loss) for loss in losses[1:]] == [math.inf, -math.inf, 1.0]
    assert "WARNING" not in caplog.text


def test_resume_continues_the_id_and_writes_the_whole_run(tmp_path):
    folder = tmp_path / "run"
    first = observers(folder)
    report(first, range(6))
    states = json.loads(json.dumps([observer.state() for observer in first]))
    report(first, range(6, 9))
    finish(first, "preempted")
    second = observers(folder)
    for observer in second:
        observer.on_start({})
    for observer, state in zip(second, states, strict=True):
        observer.restore(state)
    report(second, range(6, 12))
    finish(second)
    run = offline_run(folder)
    assert run.run_id == states[1]["run_id"]
    assert mirrored_rows(run.history) == expected_rows(folder)
    assert sorted(expected_rows(folder)) == list(range(12))
    assert len(list((folder / "wandb").glob("superseded-*-offline-run-*"))) == 1


def test_an_attempt_without_a_checkpoint_is_set_aside(tmp_path):
    for _ in range(2):
        watching = observers(tmp_path / "run")
        report(watching, range(3))
        finish(watching)
    assert mirrored_rows(offline_run(tmp_path / "run").history) == expected_rows(tmp_path / "run")


KILLED = """
import os, signal, sys, time
from pathlib import Path
from llama_exp.logger import WandbLogger
logger = WandbLogger("offline", "p", None, [], False, folder=Path(sys.argv[1]), name="n", run_id="killed")
for step in range(50):
    logger.on_metrics({"step": step, "split": "train", "loss": 1.0})
time.sleep(4)  # several times the flush interval: the machine may be busy
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.process
def test_sigkill_leaves_a_readable_file(tmp_path):
    finished = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True)
    assert finished.returncode == -signal.SIGKILL
    run = offline_run(tmp_path, finished=False)
    assert [entry["_step"] for entry in run.history] == list(range(49))  # the last one waits for its validation row


ORPHANED = """
import os, signal, sys, time
from pathlib import Path
from llama_exp.console import logs
from llama_exp.logger import WandbLogger
logs.attach_console()
logger = WandbLogger("offline", "p", None, [], False, folder=Path(sys.argv[1]), name="n")
logger.on_metrics({"step": 0, "split": "train", "loss": 1.0})
for entry in Path("/proc").glob("[0-9]*/stat"):
    pid, name, _, parent = entry.read_text().replace(")", "").split(" ", 4)[:4]
    if name == "(wandb-core" and int(parent) == os.getpid():
        os.kill(int(pid), signal.SIGKILL)
        print("killed")
time.sleep(0.3)
for step in range(1, 200):
    logger.on_metrics({"step": step, "split": "train", "loss": 1.0})
    logger.on_sample(step, "a", "b")
logger.on_finish("finished")
print("training finished")
"""


@pytest.mark.process
def test_death_of_the_wandb_service_is_one_warning(tmp_path):
    start = time.monotonic()
    finished = subprocess.run(
        [sys.executable, "-c", ORPHANED, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert finished.stdout == "killed\ntraining finished\n", finished.stderr
    assert finished.returncode == 0
    assert finished.stderr.count("WARNING: W&B") == 1
    assert "Traceback" not in finished.stderr
    assert time.monotonic() - start < 20


@pytest.mark.process
def test_disabled_mode_imports_no_wandb(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom llama_exp.logger import WandbLogger\n"
        "w = WandbLogger('disabled', 'p', None, [], False, folder=Path(sys.argv[1]), name='n')\n"
        "w.on_start({})\nw.on_metrics({'step': 0, 'split': 'train', 'loss': 1.0})\nw.on_sample(0, 'a', 'b')\n"
        "w.on_finish('finished')\nw.restore(w.state())\nprint(w.sync_command, 'wandb' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout == "None False\n"
    assert list(tmp_path.glob("wandb*")) == []


def test_a_wandb_that_cannot_be_imported_is_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    watching = observers(tmp_path / "run")
    report(watching, range(5))
    finish(watching)
    assert len(caplog.records) == 1 and "cannot be imported" in caplog.text
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 6


# ------------------------------------------------------------------------------------------------------ credentials


def test_online_without_key_is_a_config_error_at_a_terminal_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, "online")
    problem = caught.value.problems[0]
    assert caught.value.exit_code is ExitCode.CONFIG and problem.where == "logger.mode" and problem.found == "online"
    assert "WANDB_API_KEY" in problem.action and "logger.mode=offline" in problem.action


@pytest.mark.parametrize(
    ("entry", "base_url", "accepted"),
    [
        ("api.wandb.ai", None, True),
        ("example.org", None, False),
        ("my.host:8080", "http://my.host:8080", True),
        ("api.wandb.ai", "http://my.host:8080", False),
    ],
)
def test_a_netrc_entry_for_the_server_is_a_key(tmp_path, monkeypatch, entry, base_url, accepted):
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text(f"machine {entry} login user password {API_KEY}\n")
    netrc.chmod(0o600)
    if base_url:
        monkeypatch.setenv("WANDB_BASE_URL", base_url)
    assert (not list(find_credential_problems(LoggerMode.online))) == accepted


def test_online_without_wandb_is_a_config_error(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.setattr(needed.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="not installed"):
        make(tmp_path, "online")


@pytest.mark.process
def test_checking_credentials_imports_no_wandb():
    script = (
        "import sys\nfrom llama_exp.limits.logger import LoggerMode\n"
        "from llama_exp.logger.needed import find_credential_problems\n"
        "list(find_credential_problems(LoggerMode.online))\nprint('wandb' in sys.modules)"
    )
    environment = {**os.environ, "WANDB_API_KEY": API_KEY}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_mode_is_checked_and_the_schema_enum_is_taken(tmp_path):
    with pytest.raises(ValueError, match="mode='of'"):
        make(tmp_path, "of")
    for mode in LoggerMode:
        if mode is not LoggerMode.online:
            make(tmp_path, mode)


def test_the_mirror_gets_no_secret(tmp_path):
    mirror = make(tmp_path, "disabled", config={"a.b": 1, "hub.api_key": "canary", "l": [1, 2]})
    assert mirror._config == {"a.b": 1, "l": [1, 2]}
