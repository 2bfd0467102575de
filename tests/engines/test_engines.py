"""Sweeps by other people's launchers: the same jobs in the same folders with the same bits, whoever starts them."""

import json
import os
import time
from importlib.util import find_spec

import psutil
import pytest
from slow_steps import WHERE, slowly
from whole_runs import rows, run, start

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
ENGINES = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
    "ray": ["hydra/launcher=ray", "+hydra.launcher.ray.remote.num_cpus=1"],
}
PLUGINS = {name: f"hydra_plugins.hydra_{name}_launcher" for name in ENGINES}
STEPS = ["trainer.max_steps=4", "runtime.threads=1", "logger.mode=disabled"]
pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    (folder / "text.txt").write_text("\n\n".join(f"the cat sat on mat number {i}" for i in range(300)))
    return folder


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    if find_spec("hydra_plugins") is None or find_spec(PLUGINS[request.param]) is None:
        pytest.skip(f"needs hydra-{request.param}-launcher")
    return request.param


@pytest.fixture(scope="module")
def ours(playground):
    """The folder of the sweep by the launcher that stands in conf/config.yaml."""
    run(playground, "-m", "name=ours", "seed=0,1", *STEPS)
    (folder,) = (playground / "outputs" / "ours" / "sweeps").iterdir()
    return folder


def sweep(playground, engine, name, *overrides, code=0):
    """The folder of a sweep and what the command said."""
    said = run(playground, "-m", f"name={name}", *STEPS, *ENGINES[engine], *overrides, code=code)
    (folder,) = (playground / "outputs" / name / "sweeps").iterdir()
    return folder, said


def weights(folder):
    return (folder / "model" / "model.weights.h5").read_bytes()


def test_every_engine_gives_the_same_bits_in_the_same_folders(engine, playground, ours):
    folder, said = sweep(playground, engine, f"bits_{engine}", "seed=0,1")
    for number in (0, 1):  # submitit's jobs write into files of their own
        assert engine == "submitit" or f"job {number} | step 4/4  loss" in said
    for name in ("0_seed-0", "1_seed-1"):
        assert weights(folder / name) == weights(ours / name)
        assert rows(folder / name) == rows(ours / name)


def test_a_job_that_fails_leaves_the_others_whole(engine, playground, ours):
    text = playground / "text.txt"
    files = f"dataset.files=[{text}],[{playground}/missing.txt]"
    folder, said = sweep(playground, engine, f"fails_{engine}", files, "seed=0", code=7)
    (finished,) = [json.loads(path.read_text()) for path in folder.glob("*/summary.json")]
    assert finished["status"] == "finished"
    assert "missing.txt" in said and "1 failed" in said
    (whole,) = folder.glob("0_*")
    assert weights(whole) == weights(ours / "0_seed-0")


def digests(folder):
    """Content and time of each file of a job."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def kill_all(process):
    """The command and all that it started, at once."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=30)
    process.communicate()


def test_the_same_command_finishes_a_killed_sweep(engine, playground, ours):
    command = ["-m", f"name=killed_{engine}", "seed=0,1", *STEPS, *ENGINES[engine], *slowly(1)]
    process = start(playground, *command, PYTHONPATH=WHERE)
    root = playground / "outputs" / f"killed_{engine}" / "sweeps"
    while not list(root.glob("*/1_*/checkpoints/step-*/manifest.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    kill_all(process)
    (folder,) = root.iterdir()
    states = {path.parent: json.loads(path.read_text())["status"] for path in folder.glob("*/summary.json")}
    assert states[folder / "1_seed-1"] == "running"
    done = [job for job, status in states.items() if status == "finished"]
    before = [digests(job) for job in done]
    run(playground, *command, "resume=auto", PYTHONPATH=WHERE)
    assert [digests(job) for job in done] == before
    for name in ("0_seed-0", "1_seed-1"):
        assert weights(folder / name) == weights(ours / name)
    said = run(playground, *command, "resume=auto", PYTHONPATH=WHERE)
    assert "nothing is left to do" in said
