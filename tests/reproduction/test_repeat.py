"""A tiny run, and what `llama-exp reproduce` and `diff` say of it after one thing was changed."""

import json
import shutil

import pytest
import yaml
from whole_runs import run_here

from llama_exp import cli
from llama_exp.console import logs
from llama_exp.errors import Preempted, Problem
from llama_exp.run import sources

STEPS = ["trainer.max_steps=6", "logger=none", "trainer.log_every_steps=2"]


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """A folder with a text and a run that trained on it."""
    folder = tmp_path_factory.mktemp("reproduce")
    paragraphs = [f"{'abcdefgh'[n % 8] * 3} counts {n} and {n * n} and {n % 7}." for n in range(100)]
    (folder / "text.txt").write_text("\n\n".join(paragraphs))
    run_here(folder, *STEPS, "dataset.files=[text.txt]", "hydra.run.dir=run")
    return folder


@pytest.fixture
def command(playground, monkeypatch, capsys):
    """Runs a command in the playground; what it told, and its exit code."""
    monkeypatch.chdir(playground)
    monkeypatch.setenv("LLAMA_EXP_CACHE", str(playground / "cache"))

    def called(*arguments):
        monkeypatch.setattr("sys.argv", ["llama-exp", *arguments])
        try:
            with pytest.raises(SystemExit) as stop:
                cli.main(list(arguments))
        finally:
            logs.detach_console()
        told = capsys.readouterr()
        return stop.value.code, " ".join((told.out + told.err).split())

    return called


@pytest.fixture
def copied(playground, tmp_path):
    """A copy of the run's folder without checkpoints, to change it."""
    shutil.copytree(playground / "run", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", ".lock"))
    return tmp_path / "run"


def change_json(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_it_ends_bit_identical_and_leaves_the_verdict(command, playground):
    code, told = command("reproduce", "run", "--to", "again")
    assert code == 0 and "reproduction bit-identical" in told
    assert "expected bit-identical" in told and "all 6 steps" in told
    found = json.loads((playground / "again" / "reproduction.json").read_text())
    assert found["ending"] == "bit-identical" and found["same_weights"] and found["differences"] == []
    assert found["rows_compared"] == 6
    assert command("diff", "run", "again", "--exit-code") == (0, command("diff", "run", "again")[1])
    assert "the same, bit by bit, in all 6 rows" in command("diff", "run", "again")[1]
    # It goes on where it lies, which for a finished one is its end.
    assert command("reproduce", "run", "--to", "again")[0] == 0


def test_a_quick_look_trains_on_the_schedule_of_the_whole_run(command, playground):
    code, told = command("reproduce", "run", "--steps", "3")
    assert code == 0 and "bit-identical" in told and "3 of 6 steps" in told
    (folder,) = (playground / "outputs" / "default" / "reproduced" / "run").iterdir()
    assert json.loads((folder / "summary.json").read_text())["steps"] == 3
    assert not (playground / "outputs" / "default" / "latest").exists()


def test_from_an_archive_in_another_folder(command, playground, tmp_path, monkeypatch):
    assert command("pack", "run", "--data", "--to", str(tmp_path / "x.tar.gz"))[0] == 0
    monkeypatch.chdir(tmp_path)
    code, told = command("reproduce", "x.tar.gz", "--to", "there")
    assert code == 0 and "bit-identical" in told and "expected bit-identical" in told
    assert command("diff", "x.tar.gz", "there", "--exit-code")[0] == 0


def test_changed_data_is_named_before_training(command, playground, tmp_path):
    (tmp_path / "text.txt").write_text((playground / "text.txt").read_text().replace("counts 5 ", "counts 6 "))
    code, told = command("reproduce", "run", "--data", str(tmp_path), "--check")
    assert code == 0 and "data: dataset.train.fingerprint" in told
    assert "expected any: data (dataset.train.fingerprint" in told
    assert "config: seed" not in told


def test_a_changed_line_of_code_is_named(command, monkeypatch):
    files = dict(sources.list_sources()) | {"models/norm.py": "0" * 16, "runtime.py": "0" * 16}
    monkeypatch.setattr(sources, "list_sources", lambda: files)
    told = command("reproduce", "run", "--check")[1]
    assert "code: models/norm.py" in told and "expected any: code (models/norm.py, runtime.py) can change" in told


def test_a_changed_version_is_named(command, tmp_path, monkeypatch):
    (tmp_path / "numpy-9.9.9.dist-info").mkdir()
    (tmp_path / "numpy-9.9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 9.9.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    told = command("reproduce", "run", "--check")[1]
    assert "versions: numpy" in told and "-> 9.9.9" in told and "by rounding: versions (numpy)" in told


def test_another_number_of_threads_is_named(command):
    told = command("reproduce", "run", "runtime.threads=1", "--check")[1]
    assert "runtime: threads" in told and "-> 1" in told and "by rounding: runtime (threads)" in told


def test_the_check_writes_nothing(command, playground):
    before = sorted(playground.rglob("*"))
    command("reproduce", "run", "--check")
    assert sorted(playground.rglob("*")) == before


def test_other_rows_end_different_with_their_step(command, copied):
    lines = (copied / "metrics.jsonl").read_text().splitlines()
    row = json.loads(lines[1])
    row["loss"] += 0.5
    (copied / "metrics.jsonl").write_text("\n".join([lines[0], json.dumps(row), *lines[2:]]) + "\n")
    code, told = command("reproduce", str(copied), "--to", str(copied.parent / "other"), "--steps", "2")
    assert code == 8 and "reproduction different step 2: train loss" in told
    assert command("diff", str(copied), "run", "--exit-code")[0] == 8
    assert "results: part at step 2: train loss" in command("diff", str(copied), "run")[1]
    data = json.loads(command("diff", str(copied), "run", "--json")[1])
    assert data["results"]["first_gap"]["step"] == 2 and data["results"]["same"] is False


def test_a_run_that_was_cut_is_compared_as_far_as_it_got(command, copied):
    lines = (copied / "metrics.jsonl").read_text().splitlines()
    (copied / "metrics.jsonl").write_text("\n".join(lines[:3]) + "\n")
    change_json(copied / "summary.json", lambda summary: summary.update(status="failed"))
    told = command("reproduce", str(copied), "--check")[1]
    assert "4 of 6 steps, on the schedule of all of them; the run ended as: failed" in told


def test_a_run_that_went_on_under_other_conditions_says_so(command, copied):
    start = {"time": "2026-01-01", "changed": {"packages.numpy": ["1", "2"]}}
    change_json(copied / "run.json", lambda record: record["starts"].append(start))
    assert "the run itself went on with other packages.numpy" in command("reproduce", str(copied), "--check")[1]


def test_numbers_of_algorithms_of_another_release_are_a_difference(command, copied):
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["recipe"]["rows"]["version"] = 7
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    told = command("reproduce", str(copied), "--check")[1]
    assert "algorithms: recipe.rows.version 7 ->" in told and "expected any: algorithms (recipe.rows.version)" in told


def test_a_key_that_the_record_lacks_gets_its_default_and_is_named(command, copied):
    config = yaml.safe_load((copied / "config.yaml").read_text())
    del config["lora"]["use_dora"], config["objective"]
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    told = command("reproduce", str(copied), "--check")[1]
    assert "config: lora.use_dora (absent) -> False" in told and "config: objective.loss_on (absent)" in told


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["gone"], 3, "holds no run"),
        (["text.txt"], 3, "is no archive"),
        (["run", "seed=1"], 2, "only `runtime` may be another here"),
        (["run", "runtime.thread=1"], 2, "did you mean runtime.threads"),
        (["run", "--steps", "0"], 2, "at least 1"),
        (["run", "--data", "gone"], 2, "no such folder"),
        (["run", "--to", "run"], 2, "is the recorded run itself"),
        (["run", "--stepps", "2"], 2, "did you mean --steps"),
    ],
)
def test_bad_input(command, arguments, code, told):
    found, text = command("reproduce", *arguments)
    assert found == code and told in text and "Traceback" not in text


def test_classes_of_a_record_run_only_where_the_user_says_so(command, copied):
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["trusted_modules"] = ["theirs"]
    config["trainer"]["callbacks"] = {"own": {"_target_": "theirs.Callback"}}
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    code, told = command("reproduce", str(copied), "--check")
    assert code == 2 and "add --trust theirs" in told
    code, told = command("reproduce", str(copied), "--check", "--trust", "theirs")
    assert code == 2 and "theirs" in told and "--trust" not in told  # there is no such module


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "metrics.jsonl"])
def test_a_damaged_record_is_told(command, copied, name):
    (copied / name).write_text("{")
    for words in (["reproduce", str(copied), "--check"], ["diff", str(copied), "run"]):
        code, told = command(*words)
        if name == "metrics.jsonl":  # half a line, as a kill leaves it
            assert code == 0
        else:
            assert code in (2, 3) and "fix:" in told and "Traceback" not in told


def test_nothing_to_compare_is_told_before_anything_is_trained(command, copied):
    (copied / "metrics.jsonl").unlink()
    code, told = command("reproduce", str(copied))
    assert code == 3 and "no rows of metrics" in told and "--check" in told


def test_what_is_stopped_says_how_it_goes_on(command, monkeypatch):
    def stopped(*_, **__):
        raise Preempted(Problem("the run was stopped", "step 3, checkpoint 3", "SIGTERM", "resume=auto"))

    monkeypatch.setattr("llama_exp.run.job.run_job", stopped)
    code, told = command("reproduce", "run", "--to", "cut", "--steps", "4", "runtime.jit=auto")
    assert code == 75
    assert (
        "go on with: llama-exp reproduce run --to cut --steps 4 runtime.jit=auto" in told and "=auto to go" not in told
    )
