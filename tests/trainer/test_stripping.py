"""A finished run gives its optimizer's state back, and says so to who would go on with it."""

import json

import numpy as np
import pytest

from llama_exp.errors import InputError
from llama_exp.run import recorded
from llama_exp.trainer import Checkpoints, load
from llama_exp.trainer.contents import require_optimizer
from llama_exp.trainer.stripping import free_optimizer

WEIGHTS = {"a/kernel": np.arange(600, dtype="float32").reshape(20, 30)}
MOMENTS = {"m": np.zeros((20, 30), "float32"), "v": np.ones((20, 30), "float32"), "iterations": np.array(4)}


def save(folder, *steps, keep=3):
    checkpoints = Checkpoints(folder, keep=keep, config_hash="c", facts={})
    for step in steps:
        tensors = {"trainable": WEIGHTS, "optimizer": MOMENTS}
        checkpoints.save(step, tensors, {"progress": {"step": step}}, "base")


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_weights_stay_and_the_optimizer_goes(tmp_path):
    folder = tmp_path / "checkpoints"
    save(folder, 2, 4)
    before = size_of(folder)
    freed = free_optimizer(folder)
    assert before - size_of(folder) == pytest.approx(freed, abs=400) and freed > 0.6 * before
    for step in (2, 4):
        checkpoint = load(folder / f"step-0000000{step}")
        np.testing.assert_array_equal(checkpoint.tensors["trainable"]["a/kernel"], WEIGHTS["a/kernel"])
        assert list(checkpoint.tensors) == ["trainable"] and checkpoint.state["progress"] == {"step": step}
        with pytest.raises(InputError, match="kept no optimizer.*\n.*\n.*resume=none"):
            require_optimizer(checkpoint)
    assert free_optimizer(folder) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000004"]
    with pytest.raises(InputError, match="trainer.keep_optimizer=always"):
        recorded.check_optimizer(tmp_path)


def test_a_run_that_keeps_it_goes_on(tmp_path):
    recorded.check_optimizer(tmp_path)  # no checkpoint at all
    save(tmp_path / "checkpoints", 2)
    recorded.check_optimizer(tmp_path)
    require_optimizer(load(tmp_path / "checkpoints/step-00000002"))


def test_what_is_damaged_is_left_alone(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    save(folder, 2, 4)
    file = folder / "step-00000004/optimizer.safetensors"
    file.write_bytes(b"x")
    (folder / "step-00000003.tmp-00000000").mkdir()
    assert free_optimizer(folder) > 0 and file.read_bytes() == b"x"
    assert "is damaged, and left as it is" in caplog.text
    assert free_optimizer(tmp_path / "none") == 0


def test_a_disk_that_fails_is_told(tmp_path, caplog, monkeypatch):
    folder = tmp_path / "checkpoints"
    save(folder, 2)

    def fail(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("llama_exp.trainer.stripping.write_manifest", fail)
    assert free_optimizer(folder) == 0 and "Read-only file system" in caplog.text
    assert json.loads((folder / "step-00000002/manifest.json").read_bytes())["files"].keys() == {
        "trainable.safetensors",
        "optimizer.safetensors",
    }
    assert [path.name for path in folder.iterdir()] == ["step-00000002"]
