"""The example of docs/experiments/your_own.md in processes, as a reader starts it: killed, and begun again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "experiments" / "your_own.md"
COMMAND = [sys.executable, "-m", "llama_exp", "experiment", "my_ranks", "--config-dir", "my_conf", "--quick"]
HOME = "outputs/experiments/my_ranks-quick"

pytestmark = pytest.mark.process


def write_example(folder):
    text = re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    path = folder / re.search(r"^# (my_conf/\S+)$", text, re.MULTILINE)[1]
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    (folder / "notes.txt").write_text("".join(f"Paragraph {n} of a text about cats.\n\n" for n in range(60)))


def start(folder, *more):
    environment = {**os.environ, "LLAMA_EXP_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    environment.pop("KERAS_BACKEND", None)
    return subprocess.Popen(
        [*COMMAND, *more], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(folder, *more):
    process = start(folder, *more)
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
    write_example(tmp_path)
    process = start(tmp_path)
    try:
        wait_for(tmp_path, f"{HOME}/ranks/*/checkpoints/step-*")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    output = finish(tmp_path)
    assert "1 run (1 finished)" in output and "goes on with the sweep" in output
    assert "more_is_better" in output and "quick variant" in output
    cut = read_results(tmp_path)
    record = json.loads((tmp_path / HOME / "experiment.json").read_text())
    assert [start["exit_code"] for start in record["starts"]] == [None, 0]
    finish(tmp_path, "--page", "my_pages")
    assert "1 of them killed without warning" in (tmp_path / "my_pages" / "my_ranks-quick.md").read_text()
    os.rename(tmp_path / HOME, tmp_path / "cut")
    finish(tmp_path)
    assert read_results(tmp_path) == cut


def read_results(folder):
    summaries = [json.loads(path.read_text()) for path in sorted((folder / HOME).glob("ranks/*/summary.json"))]
    assert len(summaries) == 4
    return [(summary["weights"], summary["validation"], summary["steps"]) for summary in summaries]
