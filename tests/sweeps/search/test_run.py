"""Searches as people start them: in any Hydra application, and in llama_exp."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from whole_runs import SMALL

ROOT = Path(__file__).resolve().parents[3]
APP = """
import json, time
import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig

ConfigStore.instance().store("config", node={"x": 0.0, "kind": "good", "seconds": 0.0})

@hydra.main(version_base=None, config_name="config")
def main(cfg):
    if cfg.kind == "bad":
        raise ValueError("of the bad kind")
    folder = HydraConfig.get().runtime.output_dir
    with open(f"{folder}/metrics.jsonl", "a") as file:
        for step in range(5):
            print(json.dumps({"step": step, "split": "validation", "loss": cfg.x**2}), file=file, flush=True)
            time.sleep(cfg.seconds)
    return cfg.x**2

main()
"""
SEARCH = ["-m", "hydra/sweeper=search", "hydra/launcher=processes", "x=interval(-2,2)", "hydra.sweep.dir=found"]
pytestmark = pytest.mark.process


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def start(folder, script, *overrides):
    return subprocess.Popen(
        [sys.executable, script, *overrides],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LLAMA_EXP_CACHE": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def search(folder, *overrides, code=0):
    process = start(folder, "app.py", *SEARCH, *overrides)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == code, told
    return told


def read_trials(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def kill_when(process, is_time):
    """SIGKILL to every process of a command, once something is true."""
    deadline = time.monotonic() + 120
    while not is_time():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_any_application_can_be_searched(folder):
    told = search(folder, "kind=good,bad", "hydra.sweeper.n_trials=6", "hydra.launcher.n_jobs=2", code=7)
    trials = read_trials(folder / "found")
    failed = [trial for trial in trials if trial["state"] == "fail"]
    assert len(trials) == 6 and 0 < len(failed) < 6
    assert {trial["kind"] for trial in failed} == {"bad"}
    assert all("of the bad kind" in trial["cause"] for trial in failed)
    best = min(float(trial["value"]) for trial in trials if trial["value"])
    assert f"best: trial {[trial['value'] for trial in trials].index(str(best))}" in told
    assert "app.py x=" in told and "kind=good" in told
    told = search(folder, "kind=good,bad", "hydra.sweeper.n_trials=8", code=7)
    assert read_trials(folder / "found")[:6] == trials and len(read_trials(folder / "found")) == 8
    assert "job 5 started" not in told and "job 7" in told
    told = search(folder, "kind=good,bad", "hydra.sweeper.direction=maximize", code=2)
    assert "['minimize'] -> ['maximize']" in told and "hydra.sweep.dir" in told
    told = search(folder, "kind=good,bad", "seconds=1", code=2)
    assert "seconds: is another value" in told and "found: 1, before 0.0" in told
    assert len(read_trials(folder / "found")) == 8


def test_mistakes_are_told_before_anything_starts(folder):
    told = search(folder, "kind=interval(1,0)", "hydra.sweeper.n_trials=0", "hydra.launcher.n_jobs=0", code=2)
    assert all(word in told for word in ("kind", "hydra.sweeper.n_trials", "hydra.launcher.n_jobs"))
    process = start(folder, "app.py", *[word for word in SEARCH if "launcher" not in word])
    assert "hydra/launcher=processes" in process.communicate(timeout=60)[0] and process.returncode == 2
    assert not (folder / "found").exists()


def test_a_search_that_is_killed_goes_on_to_the_same_trials(folder):
    """W14, with real processes; `test_search.py` has every sampler."""
    options = ["hydra.sweeper.n_startup_trials=2", "hydra.sweeper.n_trials=5"]
    search(folder, *options)
    (folder / "found").rename(folder / "whole")
    for number in (1, 3):
        process = start(folder, "app.py", *SEARCH, *options)
        kill_when(process, (folder / "found" / str(number) / "metrics.jsonl").exists)
    search(folder, *options)
    found, expected = read_trials(folder / "found"), read_trials(folder / "whole")
    assert [{**trial, "seconds": None} for trial in found] == [{**trial, "seconds": None} for trial in expected]
    assert [trial["state"] for trial in found] == ["complete"] * 5


def test_ctrl_c_stops_and_says_how_it_goes_on(folder):
    process = start(folder, "app.py", *SEARCH, "seconds=0.3", "hydra.sweeper.n_trials=3")
    while not (folder / "found/1/metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "go on with" in told and "job 2 started" not in told
    assert [trial["state"] for trial in read_trials(folder / "found")] == ["complete", "running"]
    search(folder, "seconds=0.3", "hydra.sweeper.n_trials=3")
    assert [trial["state"] for trial in read_trials(folder / "found")] == ["complete"] * 3


RATES = "1e-2,1e-7,2e-7,3e-7"  # the first one learns, the others do not
TINY = [
    *(line for line in SMALL if not line.startswith(("optimizer", "trainer.validate", "trainer.log", "trainer.check"))),
    *("trainer.max_steps=600", "trainer.validate_every_steps=60", "trainer.log_every_steps=60"),
    *("trainer.checkpoint_every_steps=60", "logger.mode=disabled"),
]


def test_llama_exp_is_searched_with_pruning_and_survives_a_kill(folder):
    """W14, on real runs: as many trials as asked for, none runs for ever, pruned ones keep a checkpoint."""
    (folder / "text.txt").write_text("\n\n".join(f"the number {number} is a number" for number in range(400)))
    seed = next(seed for seed in range(99) if np.random.default_rng(seed).permutation(4)[0] == 0)
    command = ["-m", "name=s", "hydra/sweeper=search", "hydra.sweep.dir=found", f"optimizer.learning_rate={RATES}"]
    command += ["hydra.sweeper.sampler=grid", f"hydra.sweeper.seed={seed}", "hydra.sweeper.pruner=median"]
    command += ["hydra.sweeper.prune_after_trials=1", f"dataset.files={folder}/text.txt", *TINY]
    script = str(ROOT / "train.py")
    process = start(folder, script, *command)
    kill_when(process, lambda: any((folder / "found").glob("1_*/metrics.jsonl")))
    process = start(folder, script, "resume=found")
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    trials = read_trials(folder / "found")
    assert [trial["state"] for trial in trials[:1]] == ["complete"] and len(trials) == 4
    assert {trial["state"] for trial in trials} == {"complete", "pruned"}
    for trial in trials:
        (run,) = (folder / "found").glob(f"{trial['trial']}_*")
        summary = json.loads((run / "summary.json").read_text())
        assert summary["status"] == {"complete": "finished", "pruned": "pruned"}[trial["state"]]
        assert (run / "checkpoints" / f"step-{summary['steps']:08d}" / "manifest.json").exists()
        assert (summary["steps"] == 600) == (trial["state"] == "complete")
    assert "best: trial 0" in told and "train.py --from found/0_" in told
    process = start(folder, script, "resume=found", "hydra.sweeper.n_trials=4")
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "started" not in told and "best: trial 0" in told, told
    assert read_trials(folder / "found") == trials
