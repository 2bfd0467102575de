"""Runs and sweeps read back from the disk."""

import json
import math

import pytest
import yaml

from llama_exp.errors import InputError
from llama_exp.results import find_figure, load_run, load_runs
from llama_exp.sweeps.record import Entry, Record


def make_run(folder, config=None, **summary):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config or {"seed": 0, "lora": {"rank": 0}}))
    (folder / "run.json").write_text(json.dumps({"config_hash": "a" * 64, "starts": [{"time": "2026-01-01"}]}))
    (folder / "summary.json").write_text(json.dumps({"status": "finished", **summary}))
    return folder


def make_sweep(folder, events=()):
    entries = tuple(Entry(n, (f"seed={n}",), f"{n}_seed={n}", str(n), {"seed": n}) for n in range(3))
    folder.mkdir(parents=True)
    Record("2026-01-01T00:00:00+00:00", {"command": "python train.py -m seed=0,1,2"}, None, {}, entries, "x").write(
        folder
    )
    (folder / "sweep.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def event(kind, job, attempt, second, **facts):
    return {"time": f"2026-01-01T00:00:{second:02d}+00:00", "event": kind, "job": job, "attempt": attempt, **facts}


def test_a_run_is_read_whole(tmp_path):
    run = load_run(make_run(tmp_path / "run", validation={"last": 2.5}))
    assert run.status == "finished"
    assert run.values == {"seed": 0, "lora.rank": 0}
    assert run.rows == []
    assert run.name == "run"
    assert run.place is None


def test_latest_stands_for_the_run_of_today(tmp_path):
    folder = make_run(tmp_path / "run")
    (tmp_path / "latest").symlink_to("run")
    assert load_run(tmp_path / "latest").folder == folder


@pytest.mark.parametrize("missing", ["run.json", "config.yaml"])
def test_a_folder_without_a_run_is_refused(tmp_path, missing):
    folder = make_run(tmp_path / "run")
    (folder / missing).unlink()
    with pytest.raises(InputError, match="holds no run"):
        load_run(folder)


def test_jobs_of_a_sweep_come_by_number_with_their_attempts(tmp_path):
    end = {"cause": "RuntimeError: boom", "exit_code": 1, "value": None}
    events = [
        event("begin", 0, 1, 0),
        event("end", 0, 1, 7, state="failed", **end),
        event("begin", 0, 2, 10),
        event("end", 0, 2, 30, state="finished", cause=None, exit_code=0, value=1.0),
        event("begin", 2, 1, 40),
    ]
    sweep = make_sweep(tmp_path / "sweep", events)
    for number in (2, 0):  # job 1 has not begun
        make_run(sweep / f"{number}_seed={number}")
    runs = load_runs([sweep])
    assert [run.place.number for run in runs] == [0, 2]
    assert runs[0].name == "0: seed=0"
    assert [(a.number, a.state, a.cause, a.seconds) for a in runs[0].place.attempts] == [
        (1, "failed", "RuntimeError: boom", 7.0),
        (2, "finished", None, 20.0),
    ]
    assert [(a.number, a.state) for a in runs[1].place.attempts] == [(1, None)]


def test_a_folder_above_means_all_runs_below_each_once(tmp_path):
    sweep = make_sweep(tmp_path / "name" / "sweeps" / "first")
    make_run(sweep / "1_seed=1")
    alone = make_run(tmp_path / "name" / "alone")
    (tmp_path / "name" / "latest").symlink_to("alone")
    runs = load_runs([tmp_path / "name", alone])
    assert [run.folder for run in runs] == [alone, sweep / "1_seed=1"]
    assert runs[1].place.differs == {"seed": 1}


def test_a_job_that_is_named_alone_knows_its_sweep(tmp_path):
    sweep = make_sweep(tmp_path / "sweep")
    (run,) = load_runs([make_run(sweep / "1_seed=1")])
    assert run.place.number == 1


def test_a_folder_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run and no sweep"):
        load_runs([tmp_path])
    with pytest.raises(InputError, match="no such folder"):
        load_runs([tmp_path / "absent"])


def test_a_sweep_without_a_run_says_so(tmp_path):
    with pytest.raises(InputError, match="no job of this sweep has begun"):
        load_runs([make_sweep(tmp_path / "sweep")])


def test_figures_are_found_by_their_path(tmp_path):
    summary = {"validation": {"last": 2, "perplexity": "Infinity"}, "evaluation": {"a.b": {"acc": 0.5}}, "model": "x"}
    run = load_run(make_run(tmp_path / "run", **summary))
    assert find_figure(run, "validation.last") == 2.0
    assert find_figure(run, "validation.perplexity") == math.inf
    assert find_figure(run, "evaluation.a.b.acc") == 0.5
    assert find_figure(run, "evaluation.a") is None
    assert find_figure(run, "validation") is None
    assert find_figure(run, "model") is None


def test_a_reproduction_is_no_further_run_unless_it_is_named(tmp_path):
    make_run(tmp_path / "name" / "first")
    again = make_run(tmp_path / "name" / "reproduced" / "first" / "again")
    assert [run.folder.name for run in load_runs([tmp_path / "name"])] == ["first"]
    assert [run.folder for run in load_runs([again])] == [again]


def test_rows_that_a_command_added_are_not_the_run_s_own(tmp_path):
    folder = make_run(tmp_path / "run", {"evaluation": {"sets": {"docs": {}}, "tasks": {}}})
    row = {"kind": "set", "items": 1, "tokens": 1, "seconds": 1.0, "fingerprint": "f", "file": None}
    rows = [
        {**row, "step": 4, "name": "docs", "loss": 2.0},
        {**row, "step": 4, "name": "quiz", "accuracy": 0.5},
        {**row, "step": 4, "name": "docs", "loss": 2.1},
        {**row, "step": 8, "name": "docs", "loss": 1.0},
    ]
    (folder / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = load_run(folder)
    assert len(run.evaluations) == 4
    assert [(row["step"], row["loss"]) for row in run.own_evaluations] == [(4, 2.0), (8, 1.0)]
