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

from llama_exp.experiments.page import write_page
from llama_exp.experiments.record import read_record
from llama_exp.experiments.request import Request

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "experiments" / "your_own.md"
COMMAND = ["experiment", "my_ranks", "--config-dir", "my_conf", "--quick"]
HOME = "outputs/experiments/my_ranks-quick"

pytestmark = pytest.mark.process


def write_example(folder):
    text = re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    path = folder / re.search(r"^# (my_conf/\S+)$", text, re.MULTILINE)[1]
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    (folder / "notes.txt").write_text("".join(f"Paragraph {n} of a text about cats.\n\n" for n in range(60)))


def start(folder, *command):
    environment = {**os.environ, "LLAMA_EXP_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    environment.pop("KERAS_BACKEND", None)
    program = [sys.executable, "-m", "llama_exp", *command]
    return subprocess.Popen(program, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(folder, *command):
    process = start(folder, *command)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output.decode()[-3000:]
    return output.decode()


def wait_for(folder, pattern):
    end = time.monotonic() + 120
    while not (found := list(folder.glob(pattern))):
        assert time.monotonic() < end, f"no {pattern}"
        time.sleep(0.02)
    return found[0]


def test_a_killed_experiment_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """Killed with its first checkpoint; what its processes leave behind does not keep the next start out."""
    write_example(tmp_path)
    process = start(tmp_path, *COMMAND)
    try:
        cut = wait_for(tmp_path, f"{HOME}/ranks/*/checkpoints/step-*").parents[1]
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    output = finish(tmp_path, *COMMAND)
    assert "1 run (1 finished)" in output and "goes on with the sweep" in output
    assert "more_is_better" in output and "quick variant" in output
    finish(tmp_path, "train", "--from", str(cut), "hydra.run.dir=straight", "resume=none")
    assert read_result(cut) == read_result(tmp_path / "straight")
    monkeypatch.chdir(tmp_path)
    record = read_record(Path(HOME))
    assert [start["exit_code"] for start in record["starts"]] == [None, 0]
    list(write_page(Request("my_ranks", is_quick=True, config_dir="my_conf"), tmp_path / "pages"))
    page = (tmp_path / "pages" / "my_ranks-quick.md").read_text()
    assert "1 of them killed without warning" in page and str(tmp_path) not in page


def read_result(folder):
    summary = json.loads((folder / "summary.json").read_text())
    return summary["weights"], summary["validation"], summary["steps"]
