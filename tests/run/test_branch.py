"""Whole runs that begin with another run's state, beside runs that were trained straight."""

import json
import shutil

import numpy as np
import pytest
from whole_runs import rows, run_here

from llama_exp.run import branch
from llama_exp.trainer import load

QUICK = ["model.num_layers=1", "runtime.jit=false", "trainer.sample_tokens=2", "logger=none", "model.dropout=0.1"]
QUICK += ["schedule=wsd", "schedule.warmup_steps=1", "trainer.checkpoint_every_steps=2"]


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("branch")
    (folder / "text.txt").write_text("\n\n".join(f"{'abcdefgh'[n % 8] * 3} counts {n}, {n * n}." for n in range(200)))
    return folder


@pytest.fixture(scope="module")
def trunk(playground):
    """Seven steps, the last one at a falling rate; validated, sampled and saved at its last step too."""
    train(playground, "trunk", 7, "schedule.decay_steps=1", "trainer.keep_checkpoints=9")
    return playground / "trunk"


@pytest.fixture(scope="module")
def straight(playground):
    train(playground, "straight", 6, *DECAY)
    return playground / "straight"


DECAY = ["schedule.decay_steps=2", "schedule.decay_shape=sqrt"]


def train(playground, folder, max_steps, *overrides, code=0):
    place = f"hydra.run.dir={playground / folder}"
    return run_here(playground, *QUICK, f"trainer.max_steps={max_steps}", place, *overrides, code=code)


def read(folder, name):
    return json.loads((folder / name).read_text())


def assert_same_run(ours, theirs, step=6):
    one, other = (load(path / "checkpoints" / f"step-{step:08d}") for path in (ours, theirs))
    for group, arrays in other.tensors.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(one.tensors[group][name], array)
    assert rows(ours) == rows(theirs)
    assert (ours / "samples.md").read_text() == (theirs / "samples.md").read_text()
    assert read(ours, "summary.json")["weights"] == read(theirs, "summary.json")["weights"]
    assert read(ours, "summary.json")["validation"] == read(theirs, "summary.json")["validation"]
    assert read(ours, "run.json")["config_hash"] == read(theirs, "run.json")["config_hash"]


def test_trunk_and_decay_are_the_straight_run_to_the_bit(playground, trunk, straight):
    output = train(playground, "branch", 6, *DECAY, "branch_from=trunk")
    assert "beginning after step 4 of trunk" in output
    folder = playground / "branch"
    assert_same_run(folder, straight)
    origin = read(folder, "run.json")["branch"]
    manifest = read(trunk / "checkpoints" / "step-00000004", "manifest.json")
    assert origin["digest"] == manifest["sha256"] and (origin["step"], origin["folder"]) == (4, "trunk")
    assert origin["tokens"] == manifest["state"]["progress"]["tokens"]
    assert "branch" not in read(straight, "run.json")


def test_a_branch_that_was_killed_goes_on_also_without_its_trunk(playground, trunk, straight, tmp_path, monkeypatch):
    """Killed before it had taken the state, and after its first steps; then the other run is gone."""
    gone = shutil.copytree(trunk, tmp_path / "gone")
    monkeypatch.setattr(branch, "copy_checkpoint", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    train(playground, tmp_path / "cut", 6, *DECAY, f"branch_from={gone}", code=130)
    monkeypatch.undo()
    assert not list((tmp_path / "cut" / "checkpoints").glob("step-*"))
    output = train(playground, tmp_path / "cut", 6, *DECAY, f"branch_from={gone}", "resume=auto")
    assert "beginning after step 4" in output
    assert_same_run(tmp_path / "cut", straight)
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000006")
    (tmp_path / "cut" / "summary.json").write_text(json.dumps({"status": "running"}))
    shutil.rmtree(gone)
    output = train(playground, tmp_path / "cut", 6, *DECAY, f"branch_from={gone}", "resume=auto")
    assert "branch_from is where it began" in output
    assert_same_run(tmp_path / "cut", straight)


@pytest.mark.slow
def test_other_data_or_a_cut_record_is_refused_and_leaves_nothing(playground, trunk, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text((playground / "text.txt").read_text().replace("counts 7,", "counts 8,"))
    moved = shutil.copytree(trunk, tmp_path / "moved")
    config = (moved / "config.yaml").read_text().replace(str(playground / "text.txt"), str(other))
    (moved / "config.yaml").write_text(config)
    changed = [f"dataset.files=[{other}]", f"branch_from={moved}"]
    output = train(playground, tmp_path / "new", 6, *DECAY, *changed, code=3)
    assert "the data, as rows of tokens, is not what the run was begun with" in output
    assert not (tmp_path / "new").exists()
    cut = shutil.copytree(trunk, tmp_path / "short")
    (cut / "metrics.jsonl").write_bytes((cut / "metrics.jsonl").read_bytes()[:100])
    output = train(playground, tmp_path / "new", 6, *DECAY, f"branch_from={cut}", code=3)
    assert "the record of the run to branch from is cut" in output and not (tmp_path / "new").exists()
