"""Times what a researcher waits for before any framework is imported: mistakes named, a config shown, a completion.

    python benchmarks/config_errors.py [--runs 9]

Prints medians over whole processes, the interpreter's start included, and the time of an empty interpreter beside them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAIN = [sys.executable, str(ROOT / "train.py")]
COMMANDS = {
    "an empty interpreter": ([sys.executable, "-c", "pass"], 0),
    "three mistakes named": ([*TRAIN, "lora.rnk=8", "model=lama2_7b", "optimizer.learning_rate=fast"], 2),
    "model=llama2_7b lora.rank=8 --cfg job": ([*TRAIN, "model=llama2_7b", "lora.rank=8", "--cfg", "job"], 0),
    "a sweep of 12 points with one wrong value": (
        [*TRAIN, "-m", "lora.rank=4,8,16", "optimizer.learning_rate=1e-4,3e-4,1e-3,fast"],
        2,
    ),
    "tab completion": ([*TRAIN, "-sc", "query=bash"], 0),
}


def seconds(command, code):
    """Wall seconds of one process that must end with `code`."""
    environment = {**os.environ, "COMP_LINE": "python train.py model=llama2", "COMP_POINT": "28"}
    start = time.perf_counter()
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    elapsed = time.perf_counter() - start
    if finished.returncode != code:
        raise SystemExit(f"{command} ended with {finished.returncode}:\n{finished.stderr}")
    return elapsed


def main():
    """Runs all commands in turn, `--runs` rounds after one for warming up, and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    times = {name: [] for name in COMMANDS}
    for round_number in range(runs + 1):
        for name, (command, code) in COMMANDS.items():
            elapsed = seconds(command, code)
            if round_number:
                times[name].append(elapsed)
    for name, values in times.items():
        print(f"{statistics.median(values):6.2f} s  ({min(values):.2f} to {max(values):.2f})  {name}")


if __name__ == "__main__":
    main()
