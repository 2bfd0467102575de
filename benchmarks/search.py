"""A search on the default experiment, killed once and continued: steps saved, and the best trial run by itself.

    pip install -c constraints.txt -e ".[search]"
    python benchmarks/search.py                                      # trainer=quick; half an hour on two cores
    python benchmarks/search.py trainer.max_steps=60 ...             # other values for all trials

Twelve trials over learning rate (from 1e-5 to 1e-1), weight decay and `beta_2`: tpe after four random ones, the median
pruner after two finished ones. At a seeded moment of a seeded trial every process of the search gets SIGKILL; then
`resume=<its folder>` does what is left. At the end the best trial's recorded configuration is run by itself, and the
files of weights and optimizer are compared byte by byte.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRIALS, SEED = 12, 7
SPACE = [
    "optimizer.learning_rate=tag(log,interval(1e-5,1e-1))",
    "optimizer.weight_decay=0.0,0.01,0.1",
    "optimizer.beta_2=0.95,0.99,0.999",
]
OPTIONS = {
    "n_trials": TRIALS,
    "n_startup_trials": 4,
    "pruner": "median",
    "prune_after_trials": 2,
    "prune_after_rows": 2,
    "seed": SEED,
}


def main(overrides: list[str]) -> None:
    """Prints the table."""
    rng = random.Random(SEED)
    victim, share = rng.randrange(3, TRIALS - 2), rng.uniform(0.2, 0.8)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "search"
        options = [f"hydra.sweeper.{key}={value}" for key, value in OPTIONS.items()]
        command = ["-m", "name=search", "hydra/sweeper=search", f"hydra.sweep.dir={folder}", *SPACE, *options]
        started = time.monotonic()
        process = start([*command, "trainer=quick", "logger.mode=disabled", *overrides], place)
        kill_within(process, folder, victim, share)
        before = [trial["state"] for trial in read_journal(folder)]
        told = finish(start([f"resume={folder}"], place))
        seconds = time.monotonic() - started
        trials = read_trials(folder)
        best = int(re.search(r"best: trial (\d+)", told)[1])
        alone = Path(place) / "alone"
        (run,) = folder.glob(f"{best}_*")
        finish(start(["--from", str(run / "config.yaml"), f"hydra.run.dir={alone}", "resume=none"], place))
        tell(trials, folder, best, same_bits(run, alone))
        print(f"\nkilled while trial {victim} was at {share:.0%} of its steps, with {len(before)} trials asked for")
        print(f"in all {seconds:.0f} s")


def start(arguments: list[str], place: str) -> subprocess.Popen:
    """A command in a session of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=place, env=environment, start_new_session=True, **pipes)


def finish(process: subprocess.Popen) -> str:
    """What it told."""
    told, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"exit code {process.returncode}\n{told[-4000:]}")
    return told


def kill_within(process: subprocess.Popen, folder: Path, number: int, share: float) -> None:
    """SIGKILL to all processes, once a trial has done a share of its steps; a trial that is pruned first will do."""
    while not has_reached(folder, number, share):
        if process.poll() is not None:
            raise SystemExit(f"the search ended before it was killed\n{process.communicate()[0][-4000:]}")
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def has_reached(folder: Path, number: int, share: float) -> bool:
    """Whether a trial has done a share of its steps, or has ended."""
    for run in folder.glob(f"{number}_*"):
        rows = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
        most = re.search(r"max_steps: (\d+)", (run / "config.yaml").read_text()) if rows else None
        if most and json.loads(rows[-1])["step"] >= share * int(most[1]):
            return True
        summary = run / "summary.json"
        return summary.exists() and json.loads(summary.read_text())["status"] != "running"
    return False


def read_journal(folder: Path) -> list[dict]:
    """The trials that were asked for, from the study's journal."""
    lines = [json.loads(line) for line in (folder / "study.journal").read_text().splitlines()]
    return [line for line in lines if line["op_code"] == 4]


def read_trials(folder: Path) -> list[dict[str, str]]:
    """The lines of the search's table."""
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same_bits(one: Path, other: Path) -> tuple[int, int]:
    """How many files with numbers the last checkpoint and the model have, and how many of them are equal."""
    last = max((one / "checkpoints").glob("step-*[0-9]"))
    files = [*sorted((one / "model").glob("*.h5")), *sorted(last.glob("*.safetensors"))]
    names = [path.relative_to(one) for path in files]
    return len(names), sum((other / name).exists() and digest(one / name) == digest(other / name) for name in names)


def digest(path: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tell(trials: list[dict[str, str]], folder: Path, best: int, bits: tuple[int, int]) -> None:
    """Prints what came of it."""
    steps = []
    print("| trial | learning rate | weight decay | beta_2 | state | steps | validation loss |\n|--|--|--|--|--|--|--|")
    for trial in trials:
        (run,) = folder.glob(f"{trial['trial']}_*")
        steps.append(json.loads((run / "summary.json").read_text())["steps"])
        values = [f"{float(trial['optimizer.learning_rate']):.3g}", trial["optimizer.weight_decay"]]
        loss = f"{float(trial['value']):.4f}" if trial["value"] else ""
        print(
            "|",
            " | ".join([trial["trial"], *values, trial["optimizer.beta_2"], trial["state"], str(steps[-1]), loss]),
            "|",
        )
    whole, pruned = max(steps) * len(trials), sum(trial["state"] == "pruned" for trial in trials)
    print(f"\n{len(trials)} trials, {pruned} pruned: {sum(steps)} of {whole} steps, {1 - sum(steps) / whole:.0%} saved")
    print(f"best trial {best}, run alone: {bits[1]} of {bits[0]} files of weights and optimizer equal to the bit")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of all trials: trainer.max_steps=60")
    main(parser.parse_args().overrides)
