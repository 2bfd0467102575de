"""What a further job of a sweep costs beyond its own steps: four ways to run the same jobs of a tiny model.

    pip install -c constraints.txt -e ".[bench]"     # and, for the contender `joblib`: -e ".[joblib]"
    python benchmarks/sweep.py

Each contender runs a sweep of one job and a sweep of NUM_JOBS jobs, which differ in `seed` only; the cost of a further
job is the difference of their wall times over the difference of jobs, less the seconds from the end of its first step
(which compiles) to its last row; beside it the processors' seconds of a further job, all of it, which a busy machine
hardly changes. `cold` is a process each, one after the other, `python train.py` without a sweep; `basic` and `joblib`
are Hydra's launchers (joblib with n_jobs=1); `processes` is ours, with n_jobs=1 unless its name says two: one thread a
job, at the same time on two cores or in turn, for the throughput of the whole.

Each contender begins with two cold processes, uncounted: they fill the caches, and the weights, optimizer and rows of
its first two jobs must be theirs, bit for bit; else it failed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import time
from pathlib import Path

import contest
import tiny_sweep

NUM_JOBS, NUM_STEPS = 5, 20
LONG_STEPS = 400  # where jobs at the same time are compared
LAUNCHERS = ("cold", "basic", "joblib", "processes")
COST, THROUGHPUT = "further", "together"
BACKENDS = ("tensorflow", "jax")
CONTENDERS = [f"{launcher} {COST} {backend}" for backend in BACKENDS for launcher in LAUNCHERS]
CONTENDERS += [f"processes {THROUGHPUT} {backend} n_jobs={count}" for backend in BACKENDS for count in (1, 2)]


def run_jobs(launcher: str, folder: Path, name: str, backend: str, steps: int, num_jobs: int, *more: str):
    """Wall seconds of `num_jobs` jobs, their processors' seconds, and their folders."""
    common = ["runtime.threads=1", *more]
    began, busy = time.perf_counter(), cpu_seconds()
    if launcher == "cold":
        jobs = [folder / f"{name}-{seed}" for seed in range(num_jobs)]
        for seed, job in enumerate(jobs):
            words = tiny_sweep.command(folder, backend, steps, *common, f"seed={seed}", f"hydra.run.dir={job}")
            require(tiny_sweep.run(words, folder, folder / f"{name}.log"), folder / f"{name}.log")
    else:
        seeds = ",".join(map(str, range(num_jobs)))
        mine = ["-m", f"seed={seeds}", f"hydra/launcher={launcher}", f"hydra.sweep.dir={folder / name}"]
        words = tiny_sweep.command(folder, backend, steps, *common, *mine)
        if launcher == "joblib":
            words.append("hydra.launcher.n_jobs=1")
        require(tiny_sweep.run(words, folder, folder / f"{name}.log"), folder / f"{name}.log")
        jobs = tiny_sweep.list_jobs(folder / name)
    return time.perf_counter() - began, cpu_seconds() - busy, jobs


def cpu_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def require(code: int, log: Path) -> None:
    """Raises RuntimeError with the end of the log for an exit code that is not 0."""
    if code:
        raise RuntimeError(f"exit code {code}: {log.read_text()[-1000:]}")


def step_seconds(job: Path) -> float:
    """Seconds from the end of the first step, which compiles, to the last row of metrics.jsonl."""
    rows = [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]
    return rows[-1]["seconds"] - next(row["seconds"] for row in rows if row["split"] == "train")


def child(contender: str) -> dict:
    """Measures one contender."""
    launcher, kind, backend, *options = contender.split()
    more = [f"hydra.launcher.{option}" for option in options]
    if launcher == "joblib" and importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None:
        raise RuntimeError("hydra-joblib-launcher is not installed: pip install -e '.[joblib]'")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_sweep.write_text(folder)
        steps = NUM_STEPS if kind == COST else LONG_STEPS
        *_, expected = run_jobs("cold", folder, "expected", backend, steps, 2)  # fills the caches too
        if kind == THROUGHPUT:
            wall, busy, jobs = run_jobs(launcher, folder, "jobs", backend, steps, 2, *more)
            figures = {"seconds": [wall], "one": 0.0, "cpu": busy, "steps": 2 * steps / wall}
        else:
            one, busy_one, _ = run_jobs(launcher, folder, "one", backend, steps, 1)
            wall, busy, jobs = run_jobs(launcher, folder, "jobs", backend, steps, NUM_JOBS)
            own = sum(map(step_seconds, jobs[1:])) / (NUM_JOBS - 1)
            further = [(wall - one) / (NUM_JOBS - 1) - own]
            figures = {"seconds": further, "one": one, "cpu": (busy - busy_one) / (NUM_JOBS - 1), "steps": 0.0}
        for mine, cold in zip(jobs, expected, strict=False):
            if tiny_sweep.digest_result(mine) != tiny_sweep.digest_result(cold):
                raise RuntimeError(f"{mine.name} has other bits than a cold process")
    return figures | {"peak_mib": contest.peak_mib()}


def main() -> None:
    """Prints a table for each backend, and one of the throughput."""
    options = contest.parser(__doc__).parse_args()
    if options.child:
        contest.answer(child(options.child))
        return
    results = contest.measure(contest.chosen(CONTENDERS, options.only), options.rounds)
    columns = {
        "a further job s": lambda name, row: f"{row['seconds']:.2f}",
        "its CPU s": lambda name, row: f"{row['cpu']:.2f}",
        "one job s": lambda name, row: f"{row['one']:.1f}",
    }
    for backend in BACKENDS:
        part = results.select(backend).select(COST)
        if part.rows:
            contest.report(part, columns, "processes")
    if results.select(THROUGHPUT).rows:
        whole = {"whole s": lambda name, row: f"{row['seconds']:.1f}"}
        whole["CPU s"] = lambda name, row: f"{row['cpu']:.1f}"
        whole["steps/s"] = lambda name, row: f"{row['steps']:.1f}"
        contest.report(results.select(THROUGHPUT), whole, "processes")
    contest.end(results)


if __name__ == "__main__":
    main()
