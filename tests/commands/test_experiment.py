"""The command line of `llama-exp experiment`: what it lists, and what a mistake gets."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from whole_runs import ROOT

from llama_exp import cli
from llama_exp.commands import experiment
from llama_exp.errors import ExitCode
from llama_exp.experiments.catalogue import Entry
from llama_exp.experiments.conduct import Ended

TINY = """\
# @package _global_
name: tiny
protocol:
  title: A tiny experiment
  stages:
    ranks: {grid: {lora.rank: [2, 4], seed: [0, 1, 2]}, quick: {grid: {seed: [0]}}, overrides: [preset.source=smol]}
    big: {half: pretrained, overrides: ["preset.source={smollm2}"], grid: {seed: [0, 1]}}
  claims:
    one: {statement: It is., stages: [ranks], estimator: mean_figure, arguments: {y: steps}, expected: {low: 1}}
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["llama-exp"])
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("LLAMA_EXP_SMOLLM2", raising=False)
    (tmp_path / "my" / "experiment").mkdir(parents=True)
    (tmp_path / "my" / "experiment" / "tiny.yaml").write_text(TINY)
    umask = os.umask(0o022)

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main(["experiment", *arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return caught.value.code, captured.out + captured.err

    yield call
    os.umask(umask)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tinny", "--config-dir", "my"], 2, ["tinny", "did you mean tiny?"]),
        (["python_qa_lora"], 2, ["has no stages", "llama-exp train experiment=python_qa_lora"]),
        (["seed=1"], 2, ["name of an experiment comes first", "seed=1"]),
        (["tiny", "--config-dir", "nowhere"], 2, ["no such folder", "nowhere"]),
        (["--config-dir", "nowhere"], 2, ["no such folder", "nowhere"]),
        (["tiny", "--config-dir", "my", "--half", "second"], 2, ["second", "see llama-exp experiment --help"]),
        (["tiny", "--config-dir", "my", "--half", "both"], 2, ["--preset smollm2=", "LLAMA_EXP_SMOLLM2"]),
        (["tiny", "--config-dir", "my", "--preset", "smolm2=x"], 2, ["names no model", "smollm2"]),
        (["tiny", "--config-dir", "my", "--preset", "smollm2=x"], 3, ["--preset smollm2", "nor an existing"]),
        (["tiny", "--config-dir", "my", "--preset", "smollm2="], 2, ["names no model"]),
        (["tiny", "--config-dir", "my", "--qick"], 2, ["did you mean --quick?"]),
        (["tiny", "--all"], 2, ["--all", "leave the name out"]),
        (["--page"], 2, ["name the experiment"]),
        (["tiny", "--config-dir", "my", "--page", "pages"], 3, ["run it first: llama-exp experiment tiny"]),
        (["tiny", "--config-dir", "my", "--stage", "rank"], 2, ["did you mean ranks?"]),
    ],
)
def test_a_mistake_is_told_with_what_mends_it(run, arguments, code, words):
    found, told = run(*arguments)
    assert (found, [word for word in words if word not in told]) == (code, []), told
    assert not Path("outputs").exists()


def test_the_table_lists_all_with_what_is_there(run):
    code, told = run("--config-dir", "my")
    assert code == 0
    assert [line.split() for line in told.splitlines() if " tiny " in f" {line} "][0] == (
        ["tiny", "1", "2", "6", "+", "2", "2", "+", "2", "nothing"]
    )
    assert "A tiny experiment" in told
    folder = Path("outputs/experiments/tiny")
    folder.mkdir(parents=True)
    stages = {"ranks": {"folder": "outputs/experiments/tiny/ranks", "runs": 6}}
    record = {"schema": 1, "stages": stages, "starts": [], "verdicts": {"one": "confirmed"}}
    (folder / "experiment.json").write_text(json.dumps(record))
    _, told = run("--config-dir", "my")
    assert "6 runs" in told and "one: confirmed" in told


def test_a_broken_experiment_is_in_the_table_with_its_mistake(run):
    Path("my/experiment/broken.yaml").write_text(TINY.replace("{smollm2}", "{smolm2}"))
    Path("my/experiment/unreadable.yaml").write_text("# @package _global_\na: [\n")
    code, told = run("--config-dir", "my")
    assert code == 0 and "{smolm2} is neither an earlier stage nor a model" in told and "tiny" in told


def test_a_dry_run_shows_the_commands_and_writes_nothing(run):
    code, told = run("tiny", "--config-dir", "my", "--dry-run", "--quick")
    assert code == 0 and "stage 1 of 1: ranks, half first, 2 runs, in outputs/experiments/tiny-quick/ranks" in told
    assert "  llama-exp train -m --config-dir=my experiment=tiny preset.source=smol lora.rank=2,4 seed=0" in told
    assert not Path("outputs").exists()


def test_a_model_may_be_named_by_its_variable(run, monkeypatch):
    shutil.copy(ROOT / "pyproject.toml", "smol.gguf")
    monkeypatch.setenv("LLAMA_EXP_SMOLLM2", "smol.gguf")
    code, told = run("tiny", "--config-dir", "my", "--dry-run", "--half", "pretrained")
    assert code in (0, 2, 3) and "LLAMA_EXP_SMOLLM2" not in told


@pytest.mark.parametrize(
    ("ended", "code", "words"),
    [
        (Ended(ExitCode.OK), 0, []),
        (Ended(ExitCode.SWEEP), 7, ["tiny: runs failed"]),
        (Ended(ExitCode.STORAGE), 4, []),
    ],
)
def test_all_of_them_end_with_the_worst_code(run, monkeypatch, ended, code, words):
    monkeypatch.setattr(experiment, "conduct", lambda plan, program, command: ended)
    monkeypatch.setattr(experiment, "list_experiments", lambda config_dir: [Entry("tiny", None, {})])
    found, told = run("--all", "--quick", "--config-dir", "my")
    assert found == code and "== tiny" in told and all(word in told for word in words)
