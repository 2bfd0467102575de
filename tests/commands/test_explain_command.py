"""`llama-exp explain` as it is typed: its table, its runs, its bad input."""

import json
import os

import pytest
import yaml

from llama_exp import cli
from llama_exp.commands import explain
from llama_exp.config.check import check_arguments
from llama_exp.config.identity import to_record
from llama_exp.errors import ConfigError, InputError


def lines_of(capsys, *arguments):
    assert explain.main(list(arguments)) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's folder as `train` leaves it, of a command with a folder of the user's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "lab").mkdir(parents=True)
    (tmp_path / "my" / "lab" / "a.yaml").write_text("# @package _global_\ntrainer:\n  batch_size: 6\n")
    overrides = ["+lab=a", "lora.rank=4"]
    config = check_arguments(["--config-dir", "my", *overrides]).config
    folder = tmp_path / "outputs" / "default" / "run"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_record(config)))
    (folder / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    record = {"command": "python train.py --config-dir my +lab=a lora.rank=4", "working_folder": str(tmp_path)}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_one_key_and_a_part(capsys):
    (first, place, before) = lines_of(capsys, "lora.rank", "lora.rank=3")
    assert (first, place) == ("lora.rank = 3", "  set by      argument 2: lora.rank=3")
    assert before.startswith("  instead of  0, ") and before.endswith("conf/lora/default.yaml:2")
    table = lines_of(capsys, "lora", "lora.rank=3")
    assert table[0].split() == ["lora.rank", "=", "3", "argument", "2:", "lora.rank=3,", "instead", "of", "0"]
    assert table[-2] == "files, in the order of their merge:" and "chosen by" in table[-1]
    assert len(table) == 10 + 3


def test_all_keys_and_the_keys_as_a_shell_completes_them(capsys):
    assert len(lines_of(capsys, "--all")) > 90
    assert lines_of(capsys, "seed=", "seed=5")[0] == "seed = 5"


def test_a_sweep_says_what_it_shows(capsys):
    assert lines_of(capsys, "lora.rank", "-m", "lora.rank=4,8")[0] == "lora.rank = 4 | 8"
    assert "A search chooses" in lines_of(capsys, "lora.rank", "sweep=search")[-1]


def test_a_run_is_explained_by_its_own_command(run, capsys, monkeypatch):
    monkeypatch.chdir(os.sep)  # its --config-dir is found from anywhere
    lines = lines_of(capsys, "trainer.batch_size", "lora.rank", "--run", str(run))
    assert lines[:2] == [
        "trainer.batch_size = 6",
        f"  set by      {run.parents[2].relative_to(os.sep)}/my/lab/a.yaml:3, chosen by override 1 of the run: +lab=a",
    ]  # noqa: E501
    assert "  set by      override 2 of the run: lora.rank=4" in lines and "changed since" not in "".join(lines)


def test_a_run_whose_files_have_changed(run, capsys):
    (run.parents[2] / "my" / "lab" / "a.yaml").write_text("# @package _global_\ntrainer:\n  batch_size: 7\n")
    lines = lines_of(capsys, "lora.rank", "--run", "outputs/default/run")
    assert lines[-2:] == [
        "The files or the program changed since outputs/default/run, which had:",
        "  trainer.batch_size = 6, today 7",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "name a key or a part"),
        (["lora.rnk"], 2, "did you mean lora.rank?"),
        (["seed", "lora.rnk=8"], 2, "lora.rnk: no such key"),
        (["seed", "model=lama_tiny"], 2, "did you mean llama_tiny?"),
        (["seed", "--cfg", "job"], 2, "leave it out"),
        (["seed", "--run", "nowhere"], 3, "holds no run"),
        (["seed", "--run", "outputs/default/run", "lora.rank=8"], 2, "a run has its own overrides"),
        (["seed", "--run"], 2, "expected one argument"),
        (["seed", "--config-dir", "nowhere"], 2, "no such folder"),
    ],
)
def test_bad_input(run, capsys, arguments, code, words):
    with pytest.raises(SystemExit) as stop:
        cli.main(["explain", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == code and words in error and "Traceback" not in error
    assert "found:" in error and "fix:" in error


@pytest.mark.parametrize("content", ["a: 1\n", "[1, 2]\n", "- [\n", "", "- !!python/object:os.system x\n"])
def test_a_run_whose_overrides_are_damaged(run, content):
    (run / "overrides.yaml").write_text(content)
    with pytest.raises(InputError, match="cannot be read as plain data"):
        explain.main(["seed", "--run", str(run)])


def test_a_refused_command_line_is_explained_and_told(capsys):
    with pytest.raises(ConfigError, match="set dataset.files"):
        explain.main(["dataset.files", "experiment=llama2_7b_lora"])
    told = capsys.readouterr()
    assert told.out.startswith("dataset.files = (no value yet)") and "cannot be trained" in told.err


def test_keys_of_a_saved_config(run, capsys):
    lines = lines_of(capsys, "lora.rank", "--from", "outputs/default/run")
    assert lines[0] == "lora.rank = 4" and lines[1].startswith("  set by      outputs/default/run/config.yaml:")
