"""Whole runs that go on: longer, on other data, without their checkpoints, or in a folder that went away meanwhile."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from whole_runs import HERE, rows, run_here

from llama_exp import schedule
from llama_exp.files.metrics_file import MetricsFile
from llama_exp.trainer import load
from llama_exp.trainer.step import TrainStep

QUICK = ["model.num_layers=1", "runtime.jit=false", "trainer.sample_prompts=[]", "logger.mode=disabled"]
CONSTANT = ["schedule=constant", "schedule.warmup_steps=2"]


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("continued")
    (folder / "text.txt").write_text(
        "\n\n".join(f"{'abcdefgh'[n % 8] * 3} counts {n} and {n * n}." for n in range(200))
    )
    return folder


@pytest.fixture(scope="module")
def straight(playground):
    """A run of six steps that nothing disturbed."""
    train(playground, "straight", 6, *CONSTANT)
    return playground / "straight"


@pytest.fixture(scope="module")
def short(playground):
    """The same of four steps, finished."""
    train(playground, "short", 4, *CONSTANT)
    return playground / "short"


@pytest.fixture
def cut(short, tmp_path):
    """A copy of it, as if it had been killed then."""
    folder = shutil.copytree(short, tmp_path / "cut")
    (folder / "summary.json").write_text('{"status": "running"}')
    return folder


def train(playground, folder, max_steps, *overrides, code=0):
    place = f"hydra.run.dir={playground / folder}"
    return run_here(playground, *QUICK, f"trainer.max_steps={max_steps}", place, *overrides, code=code)


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_a_larger_budget_makes_a_run_longer_and_the_summary_says_what_was_used(playground, straight):
    def buy(tokens, *words):
        place = f"hydra.run.dir={playground / 'bought'}"
        return run_here(playground, *QUICK, *CONSTANT, f"trainer.budget_tokens={tokens}", place, *words)

    output = buy(600)  # a step has 4 rows of 32 tokens
    assert "512 of 600 tokens (85.33%) in 4 steps" in output
    assert summary(playground / "bought")["budget"] == {"amount": 600.0, "unit": "tokens", "steps": 4, "used": 512}
    buy(768, f"resume={playground / 'bought'}")
    assert summary(playground / "bought")["weights"]["trained"] == summary(straight)["weights"]["trained"]
    assert summary(playground / "bought")["budget"]["steps"] == 6


def test_a_run_that_is_made_longer_has_the_bits_of_one_planned_so_long(playground, straight, short, tmp_path):
    folder = shutil.copytree(short, tmp_path / "longer")
    output = train(playground, folder, 6, *CONSTANT, "resume=auto")
    assert "trainer.max_steps: 4 before, 6 now" in output and "learning rate falls" not in output
    assert summary(folder)["status"] == "finished" and summary(folder)["steps"] == 6
    ours, theirs = (load(path / "checkpoints" / "step-00000006") for path in (folder, straight))
    for group, arrays in theirs.tensors.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(ours.tensors[group][name], array)
    assert [row for row in rows(folder) if row["split"] == "train"] == [
        row for row in rows(straight) if row["split"] == "train"
    ]


def test_a_falling_rate_is_that_of_the_longer_run_from_the_seam_on(playground):
    options = {"learning_rate": 1e-2, "final_fraction": 0.1}
    train(playground, "cosine", 4, "schedule.warmup_steps=1")
    output = train(playground, "cosine", 8, "schedule.warmup_steps=2", "resume=auto")
    assert "WARNING: the learning rate falls towards step 8 now" in output
    planned = [schedule.cosine(num_steps=4, warmup_steps=1, **options)] * 4
    planned += [schedule.cosine(num_steps=8, warmup_steps=2, **options)] * 4
    found = [row["learning_rate"] for row in rows(playground / "cosine") if row["split"] == "train"]
    assert found == pytest.approx([float(rate(step)) for step, rate in enumerate(planned)], rel=1e-6)
    assert found[4] > 2 * found[3]


def test_fewer_steps_than_reached_are_refused(playground, cut):
    before = (cut / "summary.json").read_bytes(), (cut / "config.yaml").read_bytes()
    output = train(playground, cut, 3, *CONSTANT, "resume=auto", code=2)
    assert "3, the run has a checkpoint of step 4" in output
    assert ((cut / "summary.json").read_bytes(), (cut / "config.yaml").read_bytes()) == before


def test_other_data_under_the_same_name_is_refused(playground, cut):
    text = (playground / "text.txt").read_text()
    before = (cut / "metrics.jsonl").read_bytes()
    try:
        (playground / "text.txt").write_text(text.replace("counts 7 ", "counts 8 "))
        output = train(playground, cut, 6, *CONSTANT, "resume=auto", code=3)
    finally:
        (playground / "text.txt").write_text(text)
    assert "dataset: the data, as rows of tokens, is not what the run was begun with" in output
    assert output.count("with fingerprint ") == 2 and (cut / "metrics.jsonl").read_bytes() == before
    output = train(playground, cut, 6, *CONSTANT, "resume=auto")  # the fix: the data as it was
    assert summary(cut)["steps"] == 6


def test_checkpoints_that_are_gone_are_missed(playground, cut):
    shutil.move(cut / "checkpoints", cut / "elsewhere")
    output = train(playground, cut, 4, *CONSTANT, "resume=auto", code=3)
    assert "the checkpoints of the run are gone" in output and "metrics.jsonl is at step 4" in output
    shutil.move(cut / "elsewhere", cut / "checkpoints")  # the fix
    train(playground, cut, 4, *CONSTANT, "resume=auto")
    assert summary(cut)["status"] == "finished"


def test_a_run_that_failed_before_its_first_checkpoint_says_that_it_begins_again(playground):
    failing = ["optimizer.learning_rate=1e30", "trainer.checkpoint_every_steps=4"]
    train(playground, "failing", 4, *failing, code=5)
    output = run_here(playground, *QUICK, *failing, "trainer.max_steps=4", f"resume={playground / 'failing'}", code=5)
    assert "has no checkpoint (it ended as: failed): the run begins again at step 0" in output


@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_a_folder_that_goes_away_ends_the_run(playground, monkeypatch, how):
    folder, write = playground / f"gone-{how}", MetricsFile.on_metrics

    def then_it_goes(metrics, row):
        write(metrics, row)
        if row["step"] == 2 and row["split"] == "train":
            shutil.rmtree(folder) if how == "deleted" else folder.rename(playground / "moved-away")

    monkeypatch.setattr(MetricsFile, "on_metrics", then_it_goes)
    output = train(playground, folder.name, 6, "logger.mode=offline", code=4)
    assert "deleted, moved or replaced while the run was going on" in output
    assert "the last checkpoint too, is lost to this run" in output and "finished" not in output
    assert not folder.exists()


def test_a_stopped_run_tells_the_step_that_it_reached(playground, monkeypatch):
    step, number = TrainStep.__call__, iter(range(100))

    def stopped(self, batch):
        if next(number) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)

    monkeypatch.setattr(TrainStep, "__call__", stopped)
    output = train(playground, "stopped", 9, "trainer.log_every_steps=9", "trainer.checkpoint_every_steps=9", code=130)
    assert "step 3, checkpoint 3: the run was stopped" in output
    assert summary(playground / "stopped")["steps"] == 3


def test_the_killed_job_of_a_sweep_goes_on_where_conf_has_it(playground):
    sweep = ["name=swept", "trainer.max_steps=1"]
    run_here(playground, *QUICK, *sweep, "-m", "seed=0,1", HERE)
    (killed,) = (playground / "outputs/swept/sweeps").glob("*/1_seed-1")
    (killed / "summary.json").write_text('{"status": "running"}')
    output = run_here(playground, *QUICK, *sweep, "seed=1", "resume=auto")
    assert f"{killed.relative_to(playground)} (continued)" in output and summary(killed)["status"] == "finished"
    output = run_here(playground, *QUICK, *sweep, "seed=1", "resume=auto", "model.num_layers=2")
    assert "resume=auto finds no unfinished run of this configuration: a new one begins" in output
