"""Sweeps that are killed, and jobs that die in five ways: what is left, and what the same command makes of it.

    pip install -c constraints.txt -e ".[bench]"
    python benchmarks/faults.py kills                # six jobs on JAX, killed at 20 moments, each a sweep of its own
    python benchmarks/faults.py kills --n-jobs 2
    python benchmarks/faults.py deaths               # raise, os._exit, SIGSEGV, memory, hang: each in a sweep of 8 jobs

`kills` sends SIGKILL to the whole process group, then gives the same command with `resume=auto` until it ends. Moments
are drawn with `--seed`, by what the sweep's files say and not by the clock, so that a busy machine changes little:

    start    the first seconds, before anything is there
    record   as soon as the draft of sweep.json, or the file, is there
    journal  as soon as sweep.jsonl has so many lines
    row      as soon as all metrics.jsonl together have so many rows, and up to 0.3 s later
    export   as soon as a job's last checkpoint is there, before its model is written, and up to 0.05 s later

Right is: six folders; what was finished at the kill is the same afterwards, byte for byte, in every file; tensors of
the last checkpoint, exported weights and metrics of all six are those of a sweep that nothing disturbed.

`deaths` lets job 3 of 8 die by a callback. Right is: the 7 others finish, the cause is named, exit code 7; and the same
command with `resume=auto`, once the callback is mended, runs that job alone and ends with 0.

The exit code is 1 if anything is wrong; folders of what was wrong are kept and named.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tiny_sweep

from llama_exp.sweeps.liveness import is_alive

NUM_JOBS, NUM_STEPS = 6, 8
NUM_ROWS = NUM_JOBS * (NUM_STEPS + 3)  # validation at 0, 4 and 8
NUM_LINES = 2 * NUM_JOBS + 1  # of the journal
LAST = f"step-{NUM_STEPS:08d}"
KINDS = ["row", "journal", "export", "row", "record", "row", "export", "journal", "row", "start"]  # in this order
PATIENCE = 600.0  # seconds without which a sweep of this size has hung
BUSY = 6

DEAD_JOB, NUM_HEALTHY = 3, 7
WAYS = {  # way -> words of its cause, further overrides
    "raise": ("on purpose", []),
    "exit": ("exit code 41", []),
    "segfault": ("SIGSEGV", []),
    "memory": ("memory", ["hydra.launcher.memory_limit_gb=3"]),
    "hang": ("job_timeout_seconds", ["hydra.launcher.job_timeout_seconds=60"]),
}
CALLBACK = """
import ctypes, os, time
from pathlib import Path


def die(way):
    if way == "raise":
        raise RuntimeError("on purpose")
    if way == "exit":
        os._exit(41)
    if way == "segfault":
        ctypes.string_at(0)
    kept = []
    while way == "memory":
        kept.append(b"x" * 2**27)
        time.sleep(0.01)
    time.sleep(1e6)


class Dies:
    def __init__(self, way, number):
        self.way, self.dies = way, number == %d

    def on_metrics(self, row):
        if self.dies and row["step"] >= 2 and not Path("mended").exists():
            die(self.way)
"""


@dataclass(frozen=True)
class Moment:
    """When a sweep is killed: its kind, the count or job that it waits for, and seconds after that."""

    kind: str
    count: int
    delay: float

    def __str__(self):
        return f"{self.kind} {self.count} + {self.delay:.3f} s"


def draw(number: int, generator: random.Random) -> Moment:
    """The moment of trial `number`."""
    kind = KINDS[number % len(KINDS)]
    last, most_delay = {
        "start": (0, 4.0),
        "record": (0, 0.002),
        "journal": (NUM_LINES - 1, 0.0),
        "row": (NUM_ROWS - 2, 0.3),
        "export": (NUM_JOBS - 1, 0.05),
    }[kind]
    first = 1 if kind in ("row", "journal") else 0
    return Moment(kind, generator.randint(first, last), generator.uniform(0, most_delay))


def has_come(moment: Moment, sweep: Path) -> bool:
    """Whether the sweep's files say that the moment is there."""
    if moment.kind == "start":
        return True
    if moment.kind == "record":
        return any(name.startswith((".sweep.json.", "sweep.json")) for name in _names(sweep))
    if moment.kind == "journal":
        return _count_lines(sweep / "sweep.jsonl") >= moment.count
    if moment.kind == "row":
        return sum(_count_lines(path) for path in sweep.glob("[0-9]*/metrics.jsonl")) >= moment.count
    return any(LAST in path.name for path in sweep.glob(f"{moment.count}_*/checkpoints/*"))


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_at(moment: Moment, process, sweep: Path) -> None:
    """SIGKILL for the process group at that moment, or at the process' end."""
    while process.poll() is None and not has_come(moment, sweep):
        time.sleep(0.0 if moment.kind == "record" else 0.002)
    time.sleep(moment.delay)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    begins = [event for event in tiny_sweep.read_events(sweep) if event["event"] == "begin"]
    while any(
        is_alive(event["process"]) for event in begins
    ):  # jobs die a moment after their server; one may finish within it
        time.sleep(0.01)


def go_on(words: list[str], folder: Path, output: Path) -> int:
    """The same command until it ends; jobs of the killed one may still be dying, which is exit code 6."""
    deadline = time.monotonic() + PATIENCE
    while (code := tiny_sweep.run(words, folder, output)) == BUSY and time.monotonic() < deadline:
        time.sleep(0.5)
    return code


def list_differences(sweep: Path, before: dict[str, str], expected: list, code: int) -> list[str]:
    """What is not as it should be after the sweep went on; empty: all is right."""
    wrong = [] if code == 0 else [f"exit code {code}"]
    jobs = tiny_sweep.list_jobs(sweep)
    statuses = [tiny_sweep.find_status(job) for job in jobs]
    if statuses != ["finished"] * NUM_JOBS:
        return [*wrong, f"jobs {statuses}"]
    after = tiny_sweep.digest_files(map(Path, before))
    touched = [path for path, digest in before.items() if after.get(path) != digest]
    wrong += [f"changed: {Path(path).relative_to(sweep)}" for path in touched]
    for job, right in zip(jobs, expected, strict=True):
        found = tiny_sweep.digest_result(job)
        wrong += [
            f"other bits: {job.name}{name}"
            for name in right.keys() | found.keys()
            if right.get(name) != found.get(name)
        ]
    return wrong


def finished_files(sweep: Path) -> tuple[int, dict[str, str]]:
    """How many jobs are finished, and digests of all their files."""
    done = [job for job in tiny_sweep.list_jobs(sweep) if tiny_sweep.find_status(job) == "finished"]
    return len(done), tiny_sweep.digest_files(path for job in done for path in job.rglob("*"))


def run_kills(options: argparse.Namespace, folder: Path) -> int:
    """The series of kills; returns how many trials went wrong."""
    seeds = ",".join(str(seed) for seed in range(NUM_JOBS))

    def words(name):
        more = [f"seed={seeds}", f"hydra.sweep.dir={folder / name}", f"hydra.launcher.n_jobs={options.n_jobs}"]
        return tiny_sweep.command(folder, options.backend, NUM_STEPS, "-m", *more, "resume=auto", "runtime.threads=1")

    if (code := tiny_sweep.run(words("undisturbed"), folder, folder / "undisturbed.log")) != 0:
        raise SystemExit(f"the undisturbed sweep ended with {code}: {folder}/undisturbed.log")
    expected = [tiny_sweep.digest_result(job) for job in tiny_sweep.list_jobs(folder / "undisturbed")]
    generator, num_wrong = random.Random(options.seed), 0
    for number in range(options.kills):
        moment, sweep = draw(number, generator), folder / f"killed-{number}"
        process = tiny_sweep.start(words(sweep.name), folder, folder / f"{sweep.name}.log")
        kill_at(moment, process, sweep)
        num_events = len(tiny_sweep.read_events(sweep))
        num_done, before = finished_files(sweep)
        began = time.monotonic()
        code = go_on(words(sweep.name), folder, folder / f"{sweep.name}.log")
        wrong = list_differences(sweep, before, expected, code)
        num_wrong += bool(wrong)
        found = f"{num_done} of {NUM_JOBS} finished, {num_events} lines; went on for {time.monotonic() - began:.0f} s"
        print(f"{number:2}  {str(moment):24}  {found}: {'; '.join(wrong) or 'the same'}", flush=True)
        if not wrong:
            shutil.rmtree(sweep)
    print(f"{options.kills - num_wrong} of {options.kills} the same as undisturbed, n_jobs={options.n_jobs}")
    return num_wrong


def run_death(way: str, options: argparse.Namespace, folder: Path) -> list[str]:
    """One sweep with a job that dies; what is wrong with it."""
    cause, more = WAYS[way]
    sweep, output = folder / way, folder / f"{way}.log"
    callback = f"trainer.callbacks.deadly={{_target_: deadly.Dies, way: {way}, number: ${{seed}}}}"
    mine = ["trusted_modules=[deadly]", callback, "seed=0,1,2,3,4,5,6,7", f"hydra.sweep.dir={sweep}", "resume=auto"]
    mine += [f"hydra.launcher.n_jobs={options.n_jobs}", *more]
    words = tiny_sweep.command(folder, options.backend, NUM_STEPS, "-m", *mine)
    code = tiny_sweep.run(words, folder, output)
    wrong = [] if code == 7 else [f"exit code {code}"]
    ends = {event["job"]: event for event in tiny_sweep.read_events(sweep) if event["event"] == "end"}
    healthy = sum(event["state"] == "finished" for number, event in ends.items() if number != DEAD_JOB)
    told = str(ends.get(DEAD_JOB, {}).get("cause"))
    wrong += [f"{healthy} of {NUM_HEALTHY} finished"] * (healthy != NUM_HEALTHY)
    wrong += [f"told: {told}"] * (cause not in told or told not in output.read_text())
    num_events, before = len(tiny_sweep.read_events(sweep)), finished_files(sweep)[1]
    (folder / "mended").touch()
    code = tiny_sweep.run(words, folder, output)
    (folder / "mended").unlink()
    begun = [event["job"] for event in tiny_sweep.read_events(sweep)[num_events:] if event["event"] == "begin"]
    wrong += [f"again: exit code {code}, jobs {begun}"] * ((code, begun) != (0, [DEAD_JOB]))
    wrong += ["finished jobs were touched"] * (tiny_sweep.digest_files(map(Path, before)) != before)
    print(f"{way:8}  {healthy} of {NUM_HEALTHY} finished; {told}: {'; '.join(wrong) or 'right'}", flush=True)
    return wrong


def run_deaths(options: argparse.Namespace, folder: Path) -> int:
    """All ways of dying; returns how many went wrong."""
    (folder / "deadly.py").write_text(CALLBACK % DEAD_JOB)
    chosen = options.only.split(",") if options.only else list(WAYS)
    return sum(bool(run_death(way, options, folder)) for way in chosen)


COMMANDS: dict[str, Callable[[argparse.Namespace, Path], int]] = {"kills": run_kills, "deaths": run_deaths}


def main() -> None:
    """Runs a series in a temporary folder, which stays if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--backend", choices=("jax", "tensorflow"), default="jax")
    parser.add_argument("--n-jobs", type=int, default=1, help="jobs at the same time")
    parser.add_argument("--kills", type=int, default=20, help="trials of `kills`")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", default="", help="ways of `deaths`, comma separated")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="llama_exp-faults-"))
    tiny_sweep.write_text(folder)
    if COMMANDS[options.command](options, folder):
        sys.exit(f"see {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
