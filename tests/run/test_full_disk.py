"""A disk that is full at any of the places where a run writes: exit code 4, nothing lost, and it goes on.

The disk is a small tmpfs, which takes the right to mount.
"""

import contextlib
import hashlib
import json
import os
import subprocess

import pytest
from whole_runs import ROOT, rows, run

pytestmark = [pytest.mark.process, pytest.mark.slow]

MIB = 1 << 20
SMALL = ["runtime.backend=jax", "runtime.threads=1", "trainer.max_steps=12", "trainer.checkpoint_every_steps=2"]
SMALL += ["trusted_modules=[filler]", "trainer.callbacks={filler: {_target_: filler.Filler}}", "logger.mode=disabled"]
# Leaves FREE bytes on the disk of the run as soon as AT happens: a step's row, or the end of the training.
FILLER = """
import os, shutil

class Filler:
    def fill(self, event):
        if event == os.environ.get("AT"):
            path = os.path.join(os.environ["DISK"], "filler")
            size = shutil.disk_usage(os.environ["DISK"]).free - int(os.environ["FREE"])
            with open(path, "wb") as file:
                file.write(bytes(max(0, size)))
    def on_start(self, facts): self.fill("start")
    def on_metrics(self, row): self.fill(f"{row['split']} {row['step']}")
    def on_sample(self, step, prompt, text): pass
    def on_finish(self, status): self.fill(status)
    def state(self): return {}
    def restore(self, state): pass
"""


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only a user who may mount can have a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disks")
    lines = (f"line {number} tells a short tale number {number * number}" for number in range(9000))
    (folder / "text.txt").write_text("\n\n".join(lines))
    (folder / "filler.py").write_text(FILLER)
    return folder


def go(playground, folder, *overrides, code=0, **environment):
    environment = {"PYTHONPATH": f"{ROOT}:{playground}", "DISK": str(playground), "FREE": "0", **environment}
    return run(playground, *SMALL, f"hydra.run.dir={folder}", "resume=auto", *overrides, code=code, **environment)


@pytest.fixture(scope="module")
def straight(playground):
    go(playground, playground / "straight")
    return playground / "straight"


def final_state(folder):
    last = max((folder / "checkpoints").glob("step-????????"))
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in last.glob("*.safetensors")}
    return last.name, digests, rows(folder)


def last_checkpoint(folder):
    return max((path.name for path in (folder / "checkpoints").glob("step-????????")), default=None)


@pytest.mark.parametrize(
    ("size", "tokenizer"),
    [("8k", "bpe"), ("40k", "byte"), ("700k", "byte"), ("1300k", "byte"), ("2100k", "byte"), ("2700k", "byte")],
)
def test_the_cache(playground, straight, tmp_path, size, tokenizer):
    """From the tokenizer's file over the flat tokens to the rows, which today's text fills up to 3 MiB."""
    with small_disk(tmp_path / "disk", size) as disk:
        output = go(playground, tmp_path / "run", f"tokenizer={tokenizer}", f"runtime.cache_dir={disk}", code=4)
        assert "the cache cannot be written" in output and "Traceback" not in output
        assert not (tmp_path / "run").exists()  # nothing was trained
        assert not [path for path in disk.rglob("*.npy")]
    go(playground, tmp_path / "run", f"tokenizer={tokenizer}")
    if tokenizer == "byte":
        assert final_state(tmp_path / "run") == final_state(straight)


# What happens -> the bytes that are free then, and the step of the checkpoint that must be there afterwards.
PLACES = {
    "start": (0, None),  # the first row of metrics
    "validation 0": (8192, None),  # the first checkpoint, three times
    "train 5": (4096, 4),
    "train 6": (60_000, 4),  # in the middle of a checkpoint
    "train 9": (0, 8),
    "train 12": (16_384, 10),  # the last checkpoint, which is required
    "finished": (65_536, 12),  # the model
}


@pytest.mark.parametrize("place", PLACES)
def test_the_run_folder(playground, straight, tmp_path, place):
    free, step = PLACES[place]
    with small_disk(tmp_path / "disk", 4 * MIB) as disk:
        folder = disk / "run"
        output = go(playground, folder, code=4, AT=place, FREE=str(free), DISK=str(disk))
        assert "Traceback" not in output and "ENOSPC" in output or "bytes needed" in output
        assert last_checkpoint(folder) == (step and f"step-{step:08d}")
        assert not [path for path in disk.rglob("*.tmp*")]
        os.unlink(disk / "filler")
        go(playground, folder)
        assert final_state(folder) == final_state(straight)
        assert json.loads((folder / "summary.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("free", [0, 4096, 12_288, 200_000])
def test_before_the_run(playground, straight, tmp_path, free):
    """No room for the lock, for the record, for the config; room for these, but not for the checkpoints."""
    with small_disk(tmp_path / "disk", 4 * MIB) as disk:
        (disk / "filler").write_bytes(bytes(4 * MIB - free))
        output = go(playground, disk / "run", code=4)
        assert "Traceback" not in output and ("ENOSPC" in output or "no room for what the run will write" in output)
        os.unlink(disk / "filler")
        go(playground, disk / "run")
        assert final_state(disk / "run") == final_state(straight)
