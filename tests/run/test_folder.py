"""The run folder: made once, owned by one process, complete at the end, private, without secrets."""

import contextlib
import json
import logging
import os
import subprocess
import sys

import pytest
import yaml

from llama_exp.console import logs
from llama_exp.errors import (
    ConfigError,
    ExitCode,
    InputError,
    Interrupted,
    NumericalError,
    Preempted,
    Problem,
    Pruned,
    StorageError,
)
from llama_exp.files.lock import LOCK_NAME, FolderLock
from llama_exp.files.process import Process
from llama_exp.run.folder import RunFolder, outcome
from llama_exp.run.unfinished import find_unfinished

CONFIG = {
    "name": "x",
    "lora": {"rank": 8},
    "optimizer": {"learning_rate": 3e-4},
    "trainer": {"sample_prompts": ["Größe"]},
}
ARGUMENTS = ["train.py", "lora.rank=8"]


def begin(folder, config_hash="abc", config=CONFIG, overrides=("lora.rank=8",)):
    folder.begin(config, list(overrides), ARGUMENTS, config_hash, source=folder.path)


def read(path):
    def refuse(name):
        raise ValueError(name)

    return json.loads(path.read_text(), parse_constant=refuse)


def row(step, loss, split="train"):
    return {
        "step": step,
        "split": split,
        "loss": loss,
        "learning_rate": 1e-3,
        "tokens": step * 10,
        "seconds": 0.1 * step,
    }


def problem(what="something"):
    return Problem(what, "where", "found", "action")


def test_a_finished_run_is_complete(tmp_path):
    path = tmp_path / "runs" / "one"
    with RunFolder.create(path) as folder:
        begin(folder)
        folder.record(backend="tensorflow", seeds={"seed": 1}, dataset={"fingerprint": "f"}, device="cpu")
        logging.getLogger("llama_exp.trainer").info("a line")
        folder.metrics.on_metrics(row(0, 5.0, "validation"))
        for step in range(1, 5):
            folder.metrics.on_metrics(row(step, 5.0 - step))
        folder.metrics.on_metrics(row(4, 2.0, "validation"))
        folder.samples.on_sample(4, "a", "ab")
        summary = folder.finish(adapter="adapter")
    expected = {"config.yaml", "overrides.yaml", "run.json", "summary.json", "metrics.jsonl", "samples.md", "loss.png"}
    expected |= {"sources.json"}
    assert {entry.name for entry in path.iterdir()} == expected | {"train.log", LOCK_NAME}
    assert yaml.safe_load((path / "config.yaml").read_text()) == CONFIG
    assert "Größe" in (path / "config.yaml").read_text()
    assert yaml.safe_load((path / "overrides.yaml").read_text()) == ["lora.rank=8"]
    assert (path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert " INFO a line\n" in (path / "train.log").read_text()
    record = read(path / "run.json")
    assert (
        record["config_hash"] == "abc"
        and record["backend"] == "tensorflow"
        and record["dataset"] == {"fingerprint": "f"}
    )
    assert record["command"] == "python train.py lora.rank=8" and len(record["starts"]) == 1
    assert summary == read(path / "summary.json")
    assert summary["status"] == "finished" and summary["exit_code"] == 0 and summary["adapter"] == "adapter"
    assert summary["steps"] == 4 and summary["validation"]["best"] == 2.0 and summary["validation"]["first"] == 5.0


def test_the_summary_has_the_last_finished_step_and_not_the_last_row(tmp_path):
    """A run that is stopped between two rows: the checkpoint, the message and the summary agree."""
    folder = RunFolder.create(tmp_path / "run")
    with pytest.raises(Interrupted), folder:
        begin(folder)
        folder.metrics.on_start({"step": 0, "tokens": 0})
        folder.metrics.on_metrics(row(0, 5.0, "validation"))
        for step in range(1, 8):
            folder.metrics.on_step(step, 4.0, 100 * step)
        raise Interrupted(problem())
    summary = read(folder.path / "summary.json")
    assert (summary["steps"], summary["tokens"], summary["status"]) == (7, 700, "interrupted")


def test_status_is_running_until_the_end(tmp_path):
    with RunFolder.create(tmp_path / "run") as folder:
        begin(folder)
        assert read(folder.path / "summary.json")["status"] == "running"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Preempted(problem()), "preempted", 75),
        (Pruned(problem()), "pruned", 75),
        (Interrupted(problem()), "interrupted", 130),
        (KeyboardInterrupt(), "interrupted", 130),
        (NumericalError(problem("the loss is NaN")), "failed", 5),
        (StorageError(problem()), "failed", 4),
        (InputError(problem()), "failed", 3),
        (ZeroDivisionError("oh"), "failed", 1),
    ],
)
def test_the_summary_tells_how_it_ended(tmp_path, error, status, code):
    assert outcome(error) == (status, ExitCode(code))
    with pytest.raises(type(error)):
        with RunFolder.create(tmp_path / "run") as folder:
            begin(folder)
            folder.metrics.on_metrics(row(1, float("nan")))
            raise error
    summary = read(tmp_path / "run" / "summary.json")
    assert (summary["status"], summary["exit_code"]) == (status, code)
    assert summary["train_loss"] == "NaN"
    log = (tmp_path / "run" / "train.log").read_text()
    assert ("Traceback" in log) == (code == 1)
    assert summary["reason"].splitlines()[0] in log
    FolderLock(tmp_path / "run").release()


def test_a_folder_that_holds_a_run_is_not_made_again(tmp_path):
    with RunFolder.create(tmp_path / "run") as folder:
        begin(folder)
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(ConfigError) as caught:
        RunFolder.create(tmp_path / "run")
    assert "resume=auto" in caught.value.problems[0].action
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    FolderLock(tmp_path / "run").release()


def test_files_of_others_are_not_overwritten(tmp_path):
    (tmp_path / "config.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        RunFolder.create(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "mine"
    assert not (tmp_path / "train.log").exists()


def test_a_folder_that_exists_but_holds_no_run_is_taken(tmp_path):
    (tmp_path / ".hydra").mkdir()
    with RunFolder.create(tmp_path) as folder:
        begin(folder)
    assert RunFolder.holds_run(tmp_path)


def test_reopening_tells_every_start_and_what_changed(tmp_path, monkeypatch):
    path = tmp_path / "run"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with RunFolder.create(path) as folder:
        begin(folder)
        folder.record(backend="jax")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with RunFolder.reopen(path) as folder:
        begin(folder, config={**CONFIG, "name": "y"}, overrides=["name=y"])
        assert read(path / "summary.json")["status"] == "running"
    record = read(path / "run.json")
    assert len(record["starts"]) == 2 and record["backend"] == "jax"
    assert record["starts"][1]["changed"] == {"environment.OMP_NUM_THREADS": ["1", "2"]}
    assert yaml.safe_load((path / "config.yaml").read_text())["name"] == "y"
    assert yaml.safe_load((path / "config.1.yaml").read_text()) == CONFIG
    assert yaml.safe_load((path / "overrides.1.yaml").read_text()) == ["lora.rank=8"]


def test_log_handlers_come_and_go(tmp_path):
    logger = logging.getLogger("llama_exp")
    before = list(logger.handlers), logger.propagate
    with RunFolder.create(tmp_path / "run"):
        assert len(logger.handlers) == len(before[0]) + 1 and not logger.propagate
    assert (list(logger.handlers), logger.propagate) == before


def test_log_lines_cannot_forge_records_or_steer_terminals(tmp_path):
    with RunFolder.create(tmp_path / "run"):
        logging.getLogger("llama_exp").info("name %s", "x\x1b[2J\n2026-01-01 00:00:00+0000 ERROR forged")
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    assert lines[0].endswith("INFO name x\\x1b[2J")
    assert lines[1] == "    2026-01-01 00:00:00+0000 ERROR forged"


def test_an_unwritable_log_stops_nothing(tmp_path, monkeypatch, capsys):
    write = os.write
    logs.attach_console()
    try:
        with RunFolder.create(tmp_path / "run"):

            def full(descriptor, data):
                if b"a line" in data:
                    raise OSError(28, "No space left on device")
                return write(descriptor, data)

            monkeypatch.setattr(logs.os, "write", full)
            logging.getLogger("llama_exp").info("a line")
            logging.getLogger("llama_exp").info("another line")
    finally:
        logs.detach_console()
    assert capsys.readouterr().err.count("cannot be written any more") == 1


# ---------------------------------------------------------------------------------------------------------- secrets


def test_no_secret_gets_into_any_file(tmp_path, monkeypatch):
    canaries = {name: f"canary-{name}-0815" for name in ("HF_TOKEN", "KAGGLE_KEY", "WANDB_API_KEY", "MY_PASSWORD")}
    for name, value in canaries.items():
        monkeypatch.setenv(name, value)
    everything = " ".join(canaries.values()) + " https://user:canary-url@host/x"
    config = {"name": everything, "hub": {"token": "canary-config"}, "tags": [everything]}
    source = tmp_path / "source"
    source.mkdir()
    (source / "module.py").write_text("")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=source, check=True)
    (source / "module.py").write_text(everything)
    with pytest.raises(RuntimeError):
        with RunFolder.create(tmp_path / "run") as folder:
            arguments = ["train.py", "wandb.key=canary-argument", f"name={everything}", "--token", "canary-option"]
            folder.begin(config, arguments[1:], arguments, "hash", source)
            folder.record(preset={"source": everything})
            folder.metrics.on_metrics({"step": 1, "split": "train", "loss": 1.0, "note": everything})
            folder.samples.on_sample(1, everything, everything)
            logging.getLogger("llama_exp").warning("%s", everything)
            raise RuntimeError(everything)
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert len(files) == 11
    assert {file.name: b"canary-" in file.read_bytes() for file in files} == {file.name: False for file in files}


@pytest.mark.process
def test_nothing_is_writable_by_group_or_world(tmp_path):
    script = (
        "import sys, os; os.umask(0)\n"
        "from pathlib import Path\n"
        "from llama_exp.run.folder import RunFolder\n"
        "with RunFolder.create(Path(sys.argv[1])) as folder:\n"
        "    folder.begin({}, [], ['train.py'], 'h')\n"
        "    folder.metrics.on_metrics({'step': 1, 'split': 'train', 'loss': 1.0})\n"
        "    folder.samples.on_sample(1, 'a', 'b')\n"
        "    folder.checkpoints.mkdir()\n"
        "    (folder.checkpoints / 'by-others').write_text('x')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a" / "run")], check=True)
    paths = [tmp_path / "a", *(tmp_path / "a").rglob("*")]
    assert len(paths) >= 11
    assert [path for path in paths if path.stat().st_mode & 0o022] == []


FILES = ["config.yaml", "overrides.yaml", "run.json", "git.diff", "train.log", "metrics.jsonl", "samples.md"]
FILES += ["summary.json", "loss.png", "metrics.csv", ".lock"]
FOLDERS = ["checkpoints", "adapter", "model", "wandb", "tensorboard"]


@pytest.mark.parametrize("name", FILES + FOLDERS)
@pytest.mark.parametrize("method", [RunFolder.create, RunFolder.reopen])
def test_no_file_of_a_run_is_written_through_a_link(tmp_path, name, method):
    victim = tmp_path / "victim"
    if name in FOLDERS:
        victim.mkdir()
    else:
        victim.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(victim)
    with pytest.raises(StorageError, match=f"{name}(?s:.*)ELOOP(?s:.*)a link is in the way: remove it"):
        method(tmp_path / "run")
    assert list(victim.iterdir()) == [] if name in FOLDERS else victim.read_text() == "mine"
    (tmp_path / "run" / name).unlink()
    method(tmp_path / "run").close()


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.md", "git.diff", "summary.json", "run.json"])
def test_a_link_that_appears_while_the_run_goes_on_is_not_followed(tmp_path, name):
    (tmp_path / "victim").write_text("mine")
    with contextlib.suppress(StorageError), RunFolder.create(tmp_path / "run") as folder:
        (tmp_path / "run" / name).symlink_to(tmp_path / "victim")
        begin(folder)
        folder.metrics.on_metrics(row(1, 1.0))
        folder.samples.on_sample(1, "a", "b")
    assert (tmp_path / "victim").read_text() == "mine"


# ----------------------------------------------------------------------------------------------------- find_unfinished


def make_run(path, status, step=None, started="2026-01-01T00:00:00+00:00", config_hash="abc"):
    path.mkdir(parents=True)
    (path / "run.json").write_text(json.dumps({"config_hash": config_hash, "starts": [{"time": started}]}))
    if status:
        (path / "summary.json").write_text(json.dumps({"status": status}))
    if step is not None:
        (path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    return path


def test_nothing_to_resume(tmp_path):
    make_run(tmp_path / "a", "finished", 100)
    make_run(tmp_path / "b", "running", 100, config_hash="other")
    assert find_unfinished(tmp_path, "abc") is None
    assert find_unfinished(tmp_path / "absent", "abc") is None


@pytest.mark.parametrize("status", ["running", "preempted", "interrupted", "pruned", "failed", None])
def test_every_unfinished_status_can_be_resumed(tmp_path, status):
    run = make_run(tmp_path / "a", status, 10)
    assert find_unfinished(tmp_path, "abc") == run


def test_the_farthest_is_chosen_whatever_the_file_times_say(tmp_path):
    far = make_run(tmp_path / "a", "running", 40, "2026-01-01T00:00:00+00:00")
    near = make_run(tmp_path / "b", "running", 20, "2026-01-02T00:00:00+00:00")
    make_run(tmp_path / "c", "running", None, "2026-01-03T00:00:00+00:00")
    (near / "checkpoints" / "step-00000090.corrupt-1").mkdir()
    (near / "checkpoints" / "step-00000099.tmp-abc").mkdir()
    os.utime(far / "run.json", (0, 0))
    assert find_unfinished(tmp_path, "abc") == far


def test_of_equally_far_runs_the_latest_start_is_chosen(tmp_path):
    make_run(tmp_path / "z", "running", 40, "2026-01-01T00:00:00+00:00")
    late = make_run(tmp_path / "a", "running", 40, "2026-01-02T00:00:00+00:00")
    assert find_unfinished(tmp_path, "abc") == late


@pytest.mark.parametrize(
    "text",
    [
        '{"config_ha',
        "[" * 100_000,
        "[]",
        '{"config_hash": "abc"}',
        '{"config_hash": "abc", "starts": []}',
        '{"config_hash": "abc", "starts": {"0": 1}}',
        '{"config_hash": "abc", "starts": [{"time": 5}]}',
        '{"config_hash": "abc", "starts": [1, {"time": "2026"}]}',
    ],
)
def test_sweep_jobs_are_found_and_damaged_records_left_alone(tmp_path, caplog, text):
    job = make_run(tmp_path / "sweep" / "0", "running", 1)
    damaged = make_run(tmp_path / "damaged", "running", 99)
    (damaged / "run.json").write_text(text)
    assert find_unfinished(tmp_path, "abc") == job
    assert "damaged" in caplog.text


def test_the_link_to_the_latest_run_is_not_a_run_of_its_own(tmp_path):
    run = make_run(tmp_path / "2026-01-01_00-00-00_0123abcd", "running", 40)
    (tmp_path / "latest").symlink_to(run.name)
    assert find_unfinished(tmp_path, "abc") == run


# ------------------------------------------------------------------------------------------------- one process writes

SECOND = Process(rank=1, size=2)


def use(folder):
    begin(folder)
    folder.record(backend="tensorflow")
    logging.getLogger("llama_exp.trainer").info("a line")
    return folder.finish(adapter="adapter")


@pytest.mark.parametrize("error", [None, NumericalError(problem()), ZeroDivisionError("oh")])
def test_who_is_not_the_writer_leaves_nothing(tmp_path, capfd, error):
    handlers = list(logs.LOGGER.handlers)
    if error is None:
        with RunFolder.create(tmp_path / "run", SECOND) as folder:
            summary = use(folder)
        assert summary["status"] == "finished" and summary["exit_code"] == 0
    else:
        with pytest.raises(type(error)), RunFolder.create(tmp_path / "run", SECOND):
            raise error
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")
    assert logs.LOGGER.handlers == handlers


def test_who_is_not_the_writer_shares_the_folder_with_the_writer(tmp_path):
    with RunFolder.create(tmp_path / "run") as writer:
        begin(writer)
        before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
        for make in (RunFolder.create, RunFolder.reopen):  # whichever was first
            with make(tmp_path / "run", SECOND) as folder:
                use(folder)
        assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == {
            **before,
            tmp_path / "run/train.log": (tmp_path / "run/train.log").read_bytes(),  # one process here has one logger
        }


def test_an_undecodable_folder_is_a_whole_record(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    with RunFolder.create(folder) as run:
        begin(run, config={**CONFIG, "name": folder})
    assert find_unfinished(tmp_path, "abc") is None  # finished, not damaged
    with RunFolder.reopen(folder) as run:
        begin(run, config={**CONFIG, "name": folder})
    assert len(read(folder / "run.json")["starts"]) == 2


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path):
    path = tmp_path / "2026-01-31_12-00-00_0123abcd"
    with RunFolder.create_beside(path) as first, RunFolder.create_beside(path) as second:  # both go on at once
        begin(first)
        begin(second)
        assert (first.path, second.path.name) == (path, f"{path.name}-2")
    with RunFolder.create_beside(path) as third:  # the others are done
        assert third.path.name == f"{path.name}-3"
