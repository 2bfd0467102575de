"""Sweeps without jobs: points of one key, an application that reads a file, and what a launcher would tell."""

import hashlib
import json
from pathlib import Path

from omegaconf import OmegaConf

from llama_exp.config.sweep_point import Point
from llama_exp.sweeps.app import PlainApp
from llama_exp.sweeps.jobs import Job, Outcome, State
from llama_exp.sweeps.manifest import Manifest, collect_facts

FINISHED = Outcome(State.finished, exit_code=0, value=1.5)
NOBODY = 2**22 + 1  # above every pid


class FolderApp(PlainApp):
    """Reads how a job ended in a file of its folder, as an application with records of its own would."""

    def find_outcome(self, folder: Path):
        path = folder / "ended"
        return Outcome(State(path.read_text())) if path.exists() else None


def point(rank, **more):
    config = {"lora.rank": rank, "seed": 0, **more}
    identity = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    return Point((f"lora.rank={rank}",), identity, config, lambda number: f"{number}_rank-{rank}")


def points(*ranks):
    return [point(rank) for rank in ranks]


def open_one(folder, some, resume=True, **more):
    return Manifest.open(folder, some, FolderApp(), {**collect_facts(), **more.pop("facts", {})}, resume=resume, **more)


def job_of(manifest, number):
    entry = manifest.entries[number]
    return Job(number, entry.overrides, entry.overrides, manifest.folder_of(entry), OmegaConf.create())


def run_one(manifest, number, outcome=FINISHED, pid=NOBODY, own_word=None):
    """What a launcher tells of a job that runs and ends; `own_word`: how its folder says that it ended."""
    job = job_of(manifest, number)
    job.folder.mkdir(exist_ok=True)
    manifest.on_start(job, pid)
    if own_word is not None:
        (job.folder / "ended").write_text(own_word)
    if outcome is not None:
        manifest.on_end(job, outcome)


def numbers(entries):
    return [entry.number for entry in entries]


def states(manifest):
    return [status.state for status in manifest.find_statuses().values()]
