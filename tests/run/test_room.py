"""Room on the disk: an estimate from below, told before anything is computed."""

import collections
import shutil

import pytest

from llama_exp.config.check import check_arguments
from llama_exp.errors import StorageError
from llama_exp.run import plan
from llama_exp.run.room import require_room


def disk_bytes(*arguments):
    return plan.make_plan(check_arguments(arguments).config).disk_bytes


def test_checkpoints_and_model(tmp_path, monkeypatch):
    steps = ("trainer.max_steps=100", "trainer.checkpoint_every_steps=10", "trainer.keep_checkpoints=2")
    full = disk_bytes("model=llama_110m", *steps)
    num = plan.make_plan(check_arguments(["model=llama_110m"]).config).num_parameters
    assert full == {"checkpoints": 3 * 12 * num, "model": 4 * num}
    assert disk_bytes("model=llama_110m", *steps, "precision=bfloat16") == {"checkpoints": 30 * num, "model": 2 * num}
    assert disk_bytes("model=llama_110m", "trainer.max_steps=10", *steps[1:]) == {
        "checkpoints": 12 * num,
        "model": 4 * num,
    }
    assert disk_bytes("model=llama_110m", "trainer.max_steps=11", *steps[1:])["checkpoints"] == 24 * num
    lora = disk_bytes("model=llama2_7b", "lora.rank=8", *steps)
    assert lora == {"checkpoints": 3 * 12 * 4_194_304, "adapter": 4 * 4_194_304}
    (tmp_path / "mine.py").write_text("import keras\n\n\nclass Optimizer(keras.optimizers.AdamW): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = ("trusted_modules=[mine]", "optimizer._target_=mine.Optimizer", "~optimizer.independent_weight_decay")
    assert disk_bytes("model=llama_110m", *steps, *own)["checkpoints"] == 12 * num


@pytest.fixture
def disk(monkeypatch):
    """Says how much is free."""

    def say(free):
        usage = collections.namedtuple("usage", "total used free")(0, 0, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    return say


def test_too_little_is_told_with_both_numbers(tmp_path, disk):
    needed = {"checkpoints": 30 << 20, "model": 10 << 20}
    disk(40 << 20)
    require_room(tmp_path, needed)
    disk((40 << 20) - 1)
    with pytest.raises(StorageError) as caught:
        require_room(tmp_path, needed)
    text = str(caught.value)
    assert str(tmp_path) in text and "40.0 MiB free, 40.0 MiB needed (checkpoints 30.0 MiB, model 10.0 MiB)" in text
    assert "trainer.keep_checkpoints" in text and "hydra.run.dir" in text


def test_what_a_continued_run_holds_already_counts(tmp_path, disk):
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00000001" / "a").write_bytes(bytes(1000))
    disk(2000)
    require_room(tmp_path, {"checkpoints": 3000})
    disk(1999)
    with pytest.raises(StorageError):
        require_room(tmp_path, {"checkpoints": 3000})
    disk(0)
    require_room(tmp_path, {"checkpoints": 500})
