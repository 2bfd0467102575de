"""The manifest of a sweep: which sweeps are the same, what is left to do, who may go on."""

import json

import pytest
from omegaconf import OmegaConf

from llama_exp.config.sweep_point import Point
from llama_exp.errors import BusyError, ConfigError
from llama_exp.sweeps.app import PlainApp
from llama_exp.sweeps.jobs import Job, Outcome, State
from llama_exp.sweeps.manifest import Manifest, collect_facts

FINISHED = Outcome(State.finished, value=1.5)


class FolderApp(PlainApp):
    """Reads how a job ended in a file of its folder, as an application with records of its own would."""

    def find_outcome(self, folder):
        path = folder / "ended"
        return Outcome(State(path.read_text())) if path.exists() else None


def point(rank, **more):
    overrides = (f"lora.rank={rank}",)
    config = {"lora.rank": rank, "seed": 0, **more}
    return Point(overrides, json.dumps(config, sort_keys=True), config, lambda number: f"{number}_rank-{rank}")


def points(*ranks):
    return [point(rank) for rank in ranks]


def open_one(folder, some, resume=True, **more):
    return Manifest.open(folder, some, FolderApp(), collect_facts(), resume=resume, **more)


def job_of(manifest, number):
    entry = manifest.entries[number]
    return Job(number, entry.overrides, entry.overrides, manifest.folder_of(entry), OmegaConf.create())


def run_one(manifest, number, outcome=FINISHED, pid=2**22 + 1):
    """What a launcher tells of a job that runs and ends."""
    job = job_of(manifest, number)
    job.folder.mkdir(exist_ok=True)
    manifest.on_start(job, pid)
    if outcome is not None:
        manifest.on_end(job, outcome)


def numbers(entries):
    return [entry.number for entry in entries]


def test_a_sweep_that_is_cut_goes_on_with_what_is_left(tmp_path):
    with open_one(tmp_path, points(2, 4, 8)) as manifest:
        assert manifest.is_new and numbers(manifest.list_open()) == [0, 1, 2]
        run_one(manifest, 0)
        run_one(manifest, 1, None)  # killed with its launcher
    with open_one(tmp_path, points(2, 4, 8)) as manifest:
        assert not manifest.is_new and numbers(manifest.list_open()) == [1, 2]
        states = manifest.find_statuses()
        assert [states[n].state for n in range(3)] == [State.finished, State.interrupted, State.pending]
        assert states[0].value == 1.5 and states[1].attempts == 1
        assert manifest.find_entry(["seed=0", "lora.rank=4", "hydra.sweep.dir=x"]).folder == "1_rank-4"
        assert manifest.find_entry(["lora.rank=5"]) is None


def test_the_same_points_in_another_order_are_the_same_sweep(tmp_path):
    with open_one(tmp_path, points(2, 4)):
        pass
    with open_one(tmp_path, points(4, 2)) as manifest:
        assert [manifest.entries[n].overrides for n in (0, 1)] == [("lora.rank=2",), ("lora.rank=4",)]


def test_a_folder_with_a_sweep_takes_no_other(tmp_path):
    with open_one(tmp_path, points(2)):
        with pytest.raises(BusyError, match="sweep folder is in use"):
            open_one(tmp_path, points(2))
    with pytest.raises(ConfigError, match="holds a sweep already"):
        open_one(tmp_path, points(2), resume=False)


def test_another_grid_is_refused_with_the_difference(tmp_path):
    with open_one(tmp_path, points(2, 4, 8)):
        before = (tmp_path / "sweep.json").read_bytes()
    with pytest.raises(ConfigError) as caught:
        open_one(tmp_path, [point(2), point(4, seed=1), point(16)], extend=True)
    told = str(caught.value)
    assert "1 added: lora.rank=16; 1 gone: lora.rank=8; 1 changed: lora.rank=4" in told
    assert "seed: is another value than when the sweep began, at lora.rank=4" in told and "1, before 0" in told
    assert (tmp_path / "sweep.json").read_bytes() == before


def test_points_are_added_on_request_behind_the_old_ones(tmp_path):
    with open_one(tmp_path, points(4, 8)) as manifest:
        run_one(manifest, 0)
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.extend=true"):
        open_one(tmp_path, points(2, 4, 8))
    with open_one(tmp_path, points(2, 4, 8), extend=True) as manifest:
        assert [manifest.entries[n].folder for n in range(3)] == ["0_rank-4", "1_rank-8", "2_rank-2"]
        assert numbers(manifest.list_open()) == [1, 2]
        assert manifest.config_of(manifest.entries[2]) == {"lora.rank": 2, "seed": 0}
    with open_one(tmp_path, points(2, 4, 8)) as manifest:
        assert len(manifest.entries) == 3
