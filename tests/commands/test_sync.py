"""`llama-exp sync`: the record of runs and sweeps against a W&B server on the loopback, and the other mirrors."""

import csv

import pytest
import yaml
from fake_wandb import FakeWandb
from mirror import expected_rows, mirrored_rows, observers, offline_run, own_wandb, report  # noqa: F401

from llama_exp.commands import sync
from llama_exp.errors import ConfigError, InputError
from llama_exp.files.lock import FolderLock
from llama_exp.files.metrics_file import MetricsFile, Samples, read_samples
from llama_exp.files.writing import write_json
from llama_exp.logger import wandb_session


@pytest.fixture
def fake(monkeypatch):
    with FakeWandb() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


def record(folder, steps, *, number=0, logger=None, status="finished", run_id=None):
    """A run folder as a run without a server leaves it."""
    folder.mkdir(parents=True)
    section = {"_target_": "llama_exp.logger.WandbLogger", "project": None, "tags": ["t"]} if logger is None else logger
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": "n", "lora": {"rank": number}, "logger": section}))
    facts = {"schema": 1, "config_hash": f"h{number}", "starts": [{"time": "t"}], "backend": "jax"}
    known = {} if run_id is None else {"logger": {"logger": {"run_id": run_id, "project": "first"}}}
    write_json(folder / "run.json", {**facts, **known})
    write_json(folder / "summary.json", {"status": status})
    watching = [MetricsFile(folder / "metrics.jsonl"), Samples(folder / "samples.md")]
    report(watching, steps)
    for observer in watching:
        observer.on_finish(status)
    return folder


def only(fake):
    (run_id,) = fake.runs
    return run_id


def test_a_server_that_has_nothing_gets_the_whole_run(tmp_path, fake, capsys):
    folder = record(tmp_path / "run", range(10), number=8)
    assert sync.main([str(folder)]) == 0
    run_id = only(fake)
    assert mirrored_rows(fake.history(run_id)) == expected_rows(folder)
    assert (fake.config(run_id)["lora.rank"], fake.config(run_id)["facts.backend"]) == (8, "jax")
    assert fake.exit_codes == {run_id: 0} and fake.runs[run_id]["displayName"] == "n/run"
    assert [entry["_step"] for entry in fake.history(run_id) if "samples" in entry] == [0, 4, 8]
    assert f"1/1 {folder}: 10 steps to " in capsys.readouterr().out


def test_a_server_that_has_a_part_gets_the_rest(tmp_path, fake, capsys):
    """Of a run that it knows by the id that the run recorded; a second time there is nothing to send."""
    folder = record(tmp_path / "run", range(10), run_id="id123")
    live = observers(tmp_path / "live", "online", run_id="id123")
    report(live, range(4))
    live[1].on_finish("interrupted")
    assert sync.main([str(folder)]) == 0 and "6 steps to " in capsys.readouterr().out
    assert mirrored_rows(fake.history("id123")) == expected_rows(folder)
    before = list(fake.history("id123"))
    assert sync.main([str(folder)]) == 0 and "0 steps to " in capsys.readouterr().out
    assert fake.history("id123") == before and fake.runs["id123"]["project"] == "first"


def test_a_sweep_is_its_jobs_in_order_and_one_group(tmp_path, fake, capsys):
    sweep = tmp_path / "sweeps" / "monday"
    for number in (10, 2):
        record(sweep / f"{number}_lora.rank={number}", range(3), number=number)
    assert sync.main([str(sweep), "--project", "trials"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0].rpartition("/")[2] for line in lines] == ["2_lora.rank=2", "10_lora.rank=10"]
    assert {(run["groupName"], run["project"]) for run in fake.runs.values()} == {("monday", "trials")}
    assert len(fake.runs) == 2


def test_a_job_that_is_in_use_leaves_the_others_whole(tmp_path, fake, capsys):
    sweep = tmp_path / "sweeps" / "monday"
    first, second = (record(sweep / f"{number}_x", range(3), number=number) for number in (0, 1))
    lock = FolderLock(first)
    assert sync.main([str(sweep)]) == 6
    lock.release()
    out = capsys.readouterr().out
    assert "0_x: not sent" in out and "1_x: 3 steps" in out and len(fake.runs) == 1


@pytest.mark.parametrize("behaviour", [500, pytest.param("hang", marks=pytest.mark.slow)])
def test_a_sick_server_is_told_within_bounded_time(tmp_path, fake, monkeypatch, capsys, behaviour):
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT_SECONDS", 1.5)
    fake.behaviour = behaviour
    folder = record(tmp_path / "run", range(3))
    assert sync.main([str(folder), "--timeout", "2"]) == 3
    out = capsys.readouterr().out
    assert "could not be sent to wandb" in out and "run the same command again" in out
    assert not list((folder / "wandb").glob("offline-run-*"))


def test_a_killed_run_is_no_finished_one(tmp_path, fake):
    record(tmp_path / "run", range(3), status="running")
    assert sync.main([str(tmp_path / "run")]) == 0
    assert fake.exit_codes == {only(fake): 1}


def test_offline_writes_the_files_anew(tmp_path):
    folder = record(tmp_path / "run", range(6))
    for _ in range(2):
        assert sync.main([str(folder), "--mode", "offline", "--project", "p"]) == 0
    run = offline_run(folder)
    assert mirrored_rows(run.history) == expected_rows(folder) and run.project == "p"


def test_a_model_that_was_to_be_an_artifact_is_one(tmp_path):
    logger = {"_target_": "llama_exp.logger.WandbLogger", "log_model": True}
    folder = record(tmp_path / "run", range(2), logger=logger)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter.json").write_text("{}")
    assert sync.main([str(folder), "--mode", "offline"]) == 0
    assert offline_run(folder).artifacts == [("n-run-adapter", "adapter")]


def test_to_a_table_and_to_event_files(tmp_path, capsys):
    folder = record(tmp_path / "run", range(6), logger={})
    for kind in ("csv", "tensorboard"):
        assert sync.main([str(folder), "--to", kind]) == 0
    with (folder / "metrics.csv").open(newline="") as file:
        assert [int(line["step"]) for line in csv.DictReader(file)] == sorted(expected_rows(folder))
    assert len(list((folder / "tensorboard").iterdir())) == 1


def test_without_a_key_nothing_is_tried(tmp_path):
    folder = record(tmp_path / "run", range(2))
    with pytest.raises(ConfigError) as caught:
        sync.main([str(folder)])
    (problem,) = caught.value.problems
    assert problem.where == "--mode" and "--mode offline" in problem.action and not (folder / "wandb").exists()


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(InputError, match="holds no run and no sweep"):
        sync.main([str(tmp_path), "--to", "csv"])


def test_samples_come_back_as_they_were_told(tmp_path):
    samples = Samples(tmp_path / "samples.md")
    told = [(0, "a", "b"), (0, "## Step 9", "```text\nx\n```\n"), (4, "Prompt:", "line\n\nContinuation:\n\n```text")]
    for step, prompt, text in told:
        samples.on_sample(step, prompt, text)
    samples.on_finish("finished")
    assert read_samples(tmp_path / "samples.md") == told
    text = (tmp_path / "samples.md").read_text()
    (tmp_path / "samples.md").write_text(text[:-20])  # behind the last text the fence and two line ends are missing
    assert read_samples(tmp_path / "samples.md") == told[:2]
    assert read_samples(tmp_path / "none.md") == []


def test_a_server_that_died_and_came_back_has_all_rows(tmp_path, fake, monkeypatch, capsys):
    """It took the beginning, failed while the run went on, and is well again when the record is sent."""
    monkeypatch.setattr(wandb_session, "FINISH_TIMEOUT_SECONDS", 0.7)
    folder = record(tmp_path / "run", range(0), run_id="id123")
    live = observers(folder, "online", run_id="id123")
    report(live, range(3))
    fake.behaviour = 500
    report(live, range(3, 20))
    for observer in live:
        observer.on_finish("finished")
    fake.behaviour = "ok"
    assert sync.main([str(folder)]) == 0
    assert mirrored_rows(fake.history("id123")) == expected_rows(folder) and len(expected_rows(folder)) == 20
