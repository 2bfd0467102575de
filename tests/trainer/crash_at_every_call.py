"""A program for test_checkpoint.py: dies at each I/O call of a save, and checks what a reader finds then.

usage: crash_at_every_call.py FOLDER kill|power KEEP STEP
    kill    what was written before the call is on the disk
    power   moreover, files that were not synced keep only half of their bytes
    STEP    that is saved over checkpoints of 20 and 40: a new one, or 40 again, which takes the place of the old one

Prints the number of crash points. Imports NumPy only, so that forking is cheap and safe.
"""

import functools
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
from dying import run_dying

from llama_exp.trainer.checkpoint import Checkpoints


def tensors(step):
    rng = np.random.default_rng(step)
    return {
        "trainable": {"a/kernel": rng.normal(size=(7, 5)).astype("float32"), "b": np.float32(step)},
        "optimizer": {"iteration": np.int64(step), "momentum": rng.normal(size=(7, 5)).astype("float32")},
    }


def checkpoints(folder, keep):
    return Checkpoints(folder, keep=keep, config_hash="c", facts={"threads": 2})


def save(folder, keep, step):
    checkpoints(folder, keep).save(step, tensors(step), {"data": step}, base_digest="d")


def check(folder, keep, old, new):
    found = checkpoints(folder, keep).newest()
    assert found is not None and found.step in (old, new), found
    for group, arrays in tensors(found.step).items():
        assert sorted(arrays) == sorted(found.tensors[group])
        for name, array in arrays.items():
            np.testing.assert_array_equal(found.tensors[group][name], array)
    assert found.state == {"data": found.step}
    assert not list(folder.glob("*.corrupt-*")), "a crash must not look like damage"
    save(folder, keep, new + 20)  # the next save works, and clears what was left behind
    assert not list(folder.glob("*.tmp-*"))
    steps = sorted(int(path.name[5:]) for path in folder.glob("step-*"))
    assert len(steps) <= keep and steps[-1] == new + 20, steps


def main():
    folder, mode, keep, new = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    logging.disable(logging.CRITICAL)
    for step in (20, 40):
        save(folder / "before", keep, step)
    for count in range(1, 10_000):
        attempt = folder / "attempt"
        shutil.copytree(folder / "before", attempt)
        is_whole = run_dying(count, functools.partial(save, attempt, keep, new), power=mode == "power")
        check(attempt, keep, 40, new)
        shutil.rmtree(attempt)
        if is_whole:
            print(count - 1)
            return


main()
