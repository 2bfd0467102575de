"""A search without processes: a pool in which time is counted, and trials that follow a formula."""

import math
from pathlib import Path

from omegaconf import OmegaConf

from llama_exp import signals
from llama_exp.files.json_text import dump_json
from llama_exp.limits.search import Axis
from llama_exp.sweeps.jobs import Job, Outcome, State
from llama_exp.sweeps.search.options import read_options
from llama_exp.sweeps.search.search import Search
from llama_exp.sweeps.search.study import Study
from llama_exp.sweeps.search.trials import make_job

AXES = (
    Axis("optimizer.learning_rate", (), 1e-5, 1e-1, None, True),
    Axis("lora.rank", ("4", "8", "16")),
    Axis("layers", ("1", "2", "3", "4"), 1, 4, 1),
)
OPTIONS = {
    "n_trials": 12,
    "direction": "minimize",
    "objectives": None,
    "sampler": "random",
    "seed": 3,
    "n_startup_trials": 4,
    "pruner": "none",
    "prune_after_trials": 2,
    "prune_after_rows": 1,
    "reduction_factor": 3,
}
STEPS = (10, 20, 30, 40)  # of validation rows


def options(**changes):
    return read_options(OPTIONS | changes)


class Killed(Exception):
    """Stands for SIGKILL."""


def point_of(job):
    return dict(line.split("=") for line in job.overrides)


def objective(job):
    """Smallest at a learning rate of 1e-3, 16 ranks and 1 layer."""
    point = point_of(job)
    rate = math.log10(float(point["optimizer.learning_rate"])) + 3
    return rate**2 + 1 / int(point["lora.rank"]) + int(point["layers"]) / 10


def rows_of(job, value):
    """Losses that fall to `value`."""
    return [(step, value + (STEPS[-1] - step) / STEPS[-1]) for step in STEPS]


class FakePool:
    """A pool that runs a tick of every job at each `wait`.

    Args:
        num_slots: jobs at a time.
        behave: job -> its rows (step, loss) and its outcome behind them.
        kill_at: the tick that ends this process; None: none does.

    Attributes:
        started: numbers in the order of their starts. log: what happened, in order. ticks: row by row, all jobs.
    """

    def __init__(self, num_slots=1, behave=None, kill_at=None):
        self.num_slots, self.kill_at, self.now = num_slots, kill_at, 0
        self.behave = behave or (
            lambda job: (rows_of(job, objective(job)), Outcome(State.finished, value=objective(job)))
        )
        self.jobs, self.asked, self.started, self.ticks = {}, {}, [], 0
        self.most = 0

    @property
    def free_slots(self):
        return self.num_slots - len(self.jobs)

    @property
    def running(self):
        return list(self.jobs.values())

    def start(self, job):
        assert self.free_slots and job.number not in self.jobs
        self.jobs[job.number] = job
        self.started.append(job.number)
        self.most = max(self.most, len(self.jobs))
        job.folder.mkdir(parents=True, exist_ok=True)

    def stop(self, number, state, reason=None):
        self.asked.setdefault(number, Outcome(state, reason, 75))

    def wait(self, seconds):
        self.now += 1
        if self.now == self.kill_at:
            raise Killed
        ended = []
        for job in self.running:
            ended += self._tick(job)
        for job, _ in ended:
            del self.jobs[job.number]
        return ended

    def _tick(self, job):
        rows, outcome = self.behave(job)
        path = job.folder / "metrics.jsonl"
        written = path.read_text().splitlines() if path.exists() else []
        if job.number in self.asked:
            return [(job, self.asked[job.number])]
        if len(written) == len(rows):
            return [(job, outcome)]
        step, loss = rows[len(written)]
        self.ticks += 1
        with path.open("a") as file:
            file.write(dump_json({"step": step, "split": "validation", "loss": loss}) + "\n")
        return []


def freeze_into(folder):
    """Composes nothing: the job has its overrides."""
    return lambda overrides, number: Job(number, (), tuple(overrides), Path(folder) / str(number), OmegaConf.create())


def open_study(folder, chosen, axes=AXES):
    Path(folder).mkdir(exist_ok=True)
    return Study(Path(folder), chosen, axes)


def run_search(folder, pool, axes=AXES, outcomes=None, stop_on_failure=False, **changes):
    """The study of a search in a folder, new or continued."""
    chosen = options(**changes)
    study = open_study(folder, chosen, axes)
    search = Search(
        study,
        pool,
        lambda trial: make_job(trial, axes, ["seed=0"], freeze_into(folder)),
        lambda number: (outcomes or {}).get(number),
        chosen,
        lambda received: None,
        stop_on_failure,
    )
    with signals.noted(None):
        search.run()
    return study


def summarise(study):
    return [(trial.number, trial.params, trial.state.name, trial.values) for trial in study.trials]
