"""A whole experiment in processes, as a user starts it: killed in the middle, and begun again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_experiment import TINY, write_experiment

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "llama_exp", "experiment", "tiny", "--config-dir", "my"]
SHORT = TINY.replace("seed: [0, 1]", "seed: [0]").replace("lora.rank: [2, 4]", "lora.rank: [2]").replace(
    "{base}/model", "{base}/model\", trainer.max_steps=120, \"trainer.checkpoint_every_steps=10"
)  # fmt: skip

pytestmark = pytest.mark.process


def start(folder):
    environment = {**os.environ, "LLAMA_EXP_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    environment.pop("KERAS_BACKEND", None)
    return subprocess.Popen(COMMAND, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(folder):
    process = start(folder)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output.decode()[-3000:]
    return output.decode()


def wait_for(folder, pattern):
    end = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert time.monotonic() < end, f"no {pattern}"
        time.sleep(0.02)


def test_a_killed_experiment_goes_on_to_the_same_bits(tmp_path):
    """Killed with its first checkpoint; what its processes leave behind does not keep the next start out."""
    write_experiment(tmp_path, SHORT)
    process = start(tmp_path)
    wait_for(tmp_path, "outputs/experiments/tiny/ranks/*/checkpoints/step-*")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    output = finish(tmp_path)
    assert "1 run (1 finished)" in output and "goes on with the sweep" in output
    cut = read_results(tmp_path)
    record = json.loads((tmp_path / "outputs/experiments/tiny/experiment.json").read_text())
    assert [start["exit_code"] for start in record["starts"]] == [None, 0]
    os.rename(tmp_path / "outputs/experiments/tiny", tmp_path / "cut")
    finish(tmp_path)
    assert read_results(tmp_path) == cut


def read_results(folder):
    files = sorted(folder.glob("outputs/experiments/*/*/summary.json")) + sorted(
        folder.glob("outputs/experiments/tiny/ranks/*/summary.json")
    )
    summaries = [json.loads(path.read_text()) for path in files]
    assert len(summaries) == 2
    return [(summary["weights"], summary["validation"], summary["steps"]) for summary in summaries]
