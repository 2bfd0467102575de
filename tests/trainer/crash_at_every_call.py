"""A program for test_checkpoint.py: dies at each I/O call of a save, and checks what a reader finds then.

usage: crash_at_every_call.py FOLDER kill|power KEEP STEP
    kill    what was written before the call is on the disk
    power   moreover, files that were not synced keep only half of their bytes
    STEP    that is saved over checkpoints of 20 and 40: a new one, or 40 again, which takes the place of the old one

Prints the number of crash points. Imports NumPy only, so that forking is cheap and safe.
"""

import logging
import os
import shutil
import sys
from pathlib import Path

import numpy as np

from llama_exp.trainer.checkpoint import Checkpoints

CALLS = ("mkdir", "open", "write", "fsync", "close", "rename", "unlink", "rmdir")
STATUS = 37


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


def die_at(count, power):
    """Replaces the calls of `os` by ones that end the process at the count-th."""
    paths, unsynced, calls = {}, set(), [0]

    def wrap(name, original):
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] == count:
                for path in unsynced if power else ():
                    if os.path.exists(path):
                        os.truncate(path, os.path.getsize(path) // 2)
                os._exit(STATUS)
            result = original(*args, **kwargs)
            if name == "open":
                paths[result] = os.fspath(args[0])
            elif name == "write":
                unsynced.add(paths[args[0]])
            elif name == "fsync":
                unsynced.discard(paths[args[0]])
            elif name == "rename":
                for path in [path for path in unsynced if path.startswith(os.fspath(args[0]))]:
                    unsynced.discard(path)
                    unsynced.add(path.replace(os.fspath(args[0]), os.fspath(args[1])))
            return result

        return call

    for name in CALLS:
        setattr(os, name, wrap(name, getattr(os, name)))


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
        child = os.fork()
        if child == 0:
            die_at(count, mode == "power")
            save(attempt, keep, new)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, STATUS), status
        check(attempt, keep, 40, new)
        shutil.rmtree(attempt)
        if status == 0:
            print(count - 1)
            return


main()
