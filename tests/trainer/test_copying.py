"""A checkpoint of one run as the beginning of another."""

import numpy as np
import pytest
from small_trainer import numbers, trainer, without_times

from llama_exp import schedule
from llama_exp.errors import InputError
from llama_exp.trainer.copying import copy_checkpoint

pytestmark = pytest.mark.neutral


def decaying(num_steps, decay_steps, shape):
    return schedule.wsd(
        learning_rate=0.02,
        num_steps=num_steps,
        warmup_steps=1,
        final_fraction=0.1,
        decay_steps=decay_steps,
        decay_shape=shape,
    )


def test_trunk_and_decay_equal_the_straight_run_to_the_bit(tmp_path):
    """On the backend at hand, with dropout and a z loss."""
    options = {"dropout": 0.1, "z_loss": 1e-3}
    long, *_ = trainer(tmp_path / "long", rates=decaying(5, 1, "linear"), max_steps=5, keep=9, **options)
    long.fit()
    whole, *model, recorder = trainer(tmp_path / "whole", rates=decaying(6, 4, "sqrt"), **options)
    whole.fit()
    copy_checkpoint(tmp_path / "long" / "step-00000002", tmp_path / "branch")
    branch, *other, late = trainer(tmp_path / "branch", rates=decaying(6, 4, "sqrt"), **options)
    branch.fit()
    for ours, theirs in zip(numbers(*other), numbers(*model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert without_times(late.rows) == without_times(recorder.rows)
    assert recorder.rows[-2]["z_loss"] > 0


def test_a_damaged_checkpoint_is_not_copied(tmp_path):
    run, *_ = trainer(tmp_path / "run", max_steps=2)
    run.fit()
    source = tmp_path / "run" / "step-00000002"
    (source / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="damaged, or went away"):
        copy_checkpoint(source, tmp_path / "copy")
    assert not any((tmp_path / "copy").iterdir())
