"""A real Slurm of one node: a job that its time limit ends is queued again, and ends with the bits of a calm one.

Slurm waits two minutes before it starts a requeued job; `Hasty` says that it may start now.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from slow_steps import WHERE, slowly
from whole_runs import ROOT, complete, rows, run, start

HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "how_to" / "cluster.md"
# 144 s of steps in jobs of two minutes, which Slurm warns after one at the earliest.
STEPS = ["trainer.max_steps=24", "trainer.checkpoint_every_steps=24", "runtime.threads=1", "logger.mode=disabled"]


def find_missing():
    """What this machine lacks for these tests, or None."""
    if os.geteuid() != 0:
        return "root, because slurmd starts jobs of any user"
    programs = [name for name in ("sbatch", "slurmctld", "slurmd", "munged") if not shutil.which(name, path=paths())]
    if programs:
        return f"{', '.join(programs)}: apt-get install slurm-wlm munge"
    return None if find_spec("submitit") else "submitit: pip install 'llama_exp[slurm]'"


def paths():
    return f"{HERE / 'bin'}:{os.environ['PATH']}:/usr/sbin"


MISSING = find_missing()
pytestmark = [pytest.mark.slurm, pytest.mark.skipif(MISSING is not None, reason=f"needs {MISSING}")]


class Hasty(threading.Thread):
    """Lets requeued jobs start at once, and remembers which were requeued."""

    def __init__(self):
        super().__init__(daemon=True)
        self.done, self.seen = threading.Event(), set()

    def run(self):
        while not self.done.wait(1):
            listed = subprocess.run(
                ["squeue", "--noheader", "--states=PENDING", "--format=%i %r"], text=True, capture_output=True
            ).stdout
            for job, reason in (line.split(maxsplit=1) for line in listed.splitlines()):
                if reason == "BeginTime":
                    self.seen.add(job)
                    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], capture_output=True)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", paths())
        conf = subprocess.run([HERE / "start.sh", folder], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
        patch.setenv("SLURM_CONF", conf)
        hasty = Hasty()
        hasty.start()
        try:
            yield hasty
        finally:
            hasty.done.set()
            hasty.join()
            subprocess.run([HERE / "stop.sh", folder], check=True)


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "text.txt").write_text("\n\n".join(f"the cat sat on mat number {i}" for i in range(300)))
    return folder


@pytest.fixture(scope="module")
def calm(playground):
    """The folder of a sweep that nobody disturbs."""
    run(playground, "-m", "name=calm", "seed=0,1", *STEPS)
    (folder,) = (playground / "outputs" / "calm" / "sweeps").iterdir()
    return folder


def weights(folder):
    return (folder / "model" / "model.weights.h5").read_bytes()


def wait_for(number, seconds=480):
    """The state in which a job of Slurm's ends."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        shown = subprocess.run(
            ["scontrol", "show", "job", number], check=True, text=True, stdout=subprocess.PIPE
        ).stdout
        state = re.search(r"JobState=(\w+)", shown)[1]
        if state not in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED"):
            return state
        time.sleep(1)
    return f"{state} after {seconds} s"


def stops(folder):
    """How often a signal stopped the run."""
    return (folder / "train.log").read_text().count("stopping after this step with a checkpoint")


def test_jobs_of_an_array_that_hit_their_limit_are_requeued_and_end_with_the_same_bits(slurm, playground, calm):
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=10"]
    launcher += ["hydra.launcher.max_num_timeout=9", "hydra.launcher.cpus_per_task=1"]
    process = start(playground, "-m", "name=array", "seed=0,1", *STEPS, *slowly(6), *launcher, PYTHONPATH=WHERE)
    output, errors = process.communicate(timeout=480)
    assert process.returncode == 0, errors[-3000:]
    (sweep,) = (playground / "outputs" / "array" / "sweeps").iterdir()
    assert len(slurm.seen) == 2 and all("_" in job for job in slurm.seen)  # both of one array
    for name in ("0_seed-0", "1_seed-1"):
        assert stops(sweep / name) >= 1
        assert weights(sweep / name) == weights(calm / name)
        assert rows(sweep / name) == rows(calm / name)
        assert json.loads((sweep / name / "summary.json").read_text())["status"] == "finished"


def test_the_script_of_the_docs_requeues_itself_and_ends_with_the_same_bits(slurm, playground, calm):
    (text,) = [text for text in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL) if "#SBATCH" in text]
    command = "python train.py name=long"
    ours = shlex.join(
        [sys.executable, str(ROOT / "train.py"), *complete(playground, ["name=long", *STEPS, *slowly(6)], True)]
    )
    for written, here in {
        "04:00:00": "2",
        "USR1@300": "USR1@10",
        "cpus-per-task=8": "cpus-per-task=1",
        command: ours,
    }.items():
        assert written in text
        text = text.replace(written, here)
    (playground / "job.sh").write_text(text)
    environment = {**os.environ, "PYTHONPATH": WHERE, "LLAMA_EXP_CACHE": str(playground / "cache")}
    environment.pop("KERAS_BACKEND", None)
    submitted = subprocess.run(
        ["sbatch", "--parsable", "job.sh"],
        cwd=playground,
        env=environment,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    number = submitted.stdout.strip()
    assert wait_for(number) == "COMPLETED", (playground / f"long-{number}.log").read_text()[-3000:]
    assert number in slurm.seen
    (folder,) = [path for path in (playground / "outputs" / "long").iterdir() if path.name != "latest"]
    assert stops(folder) >= 1 and "(exit code 75)" in (folder / "train.log").read_text()
    assert weights(folder) == weights(calm / "0_seed-0")
