"""The manifest of a sweep: which sweeps are the same, what is left to do, who may go on."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
from dying import run_dying
from fake_sweeps import FINISHED, job_of, numbers, open_one, point, points, run_one, states

from llama_exp.errors import BusyError, ConfigError, InputError
from llama_exp.sweeps import manifest as manifest_module
from llama_exp.sweeps.jobs import Outcome, State
from llama_exp.sweeps.reports import make_reports


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


@pytest.mark.parametrize("on_failed", ["retry", "skip"])
@pytest.mark.parametrize(
    ("state", "starts"),
    [
        ("pending", True),
        ("running", True),  # and its process is gone: it is interrupted
        ("interrupted", True),
        ("preempted", True),
        ("finished", False),
        ("pruned", False),
        ("failed", None),  # as on_failed says
    ],
)
def test_exactly_the_wanted_jobs_start(tmp_path, state, starts, on_failed):
    with open_one(tmp_path, points(2, 4)) as manifest:
        if state != "pending":
            run_one(manifest, 0, None if state == "running" else Outcome(State(state)))
    with open_one(tmp_path, points(2, 4), on_failed=on_failed) as manifest:
        wanted = on_failed == "retry" if starts is None else starts
        assert numbers(manifest.list_open()) == ([0, 1] if wanted else [1])
        found = manifest.find_statuses()[0].state
        assert found is (State.interrupted if state == "running" else State(state))


def test_a_failed_job_is_tried_again_and_its_attempts_are_counted(tmp_path):
    with open_one(tmp_path, points(2)) as manifest:
        run_one(manifest, 0, Outcome(State.failed, "was killed by SIGKILL"))
    with open_one(tmp_path, points(2)) as manifest:
        run_one(manifest, 0)
        status = manifest.find_statuses()[0]
        assert (status.state, status.attempts, status.cause, status.value) == (State.finished, 2, None, 1.5)


@pytest.mark.parametrize(
    ("told", "own_word", "found"),
    [
        (None, "finished", State.finished),  # the launcher died before it could tell
        (State.failed, "finished", State.finished),  # went on by itself meanwhile
        (State.interrupted, "preempted", State.preempted),
        (State.failed, "preempted", State.failed),  # of an earlier attempt; this one was killed before it wrote
        (State.finished, None, State.finished),
    ],
)
def test_the_folder_corrects_the_journal(tmp_path, told, own_word, found):
    with open_one(tmp_path, points(2)) as manifest:
        run_one(manifest, 0, None if told is None else Outcome(told), own_word=own_word)
        assert states(manifest) == [found]


def test_a_job_whose_folder_is_gone_runs_again(tmp_path):
    with open_one(tmp_path, points(2)) as manifest:
        run_one(manifest, 0)
        shutil.rmtree(job_of(manifest, 0).folder)
        assert states(manifest) == [State.pending] and numbers(manifest.list_open()) == [0]


def test_a_journal_that_is_lost_is_made_up_from_the_folders(tmp_path):
    with open_one(tmp_path, points(2, 4)) as manifest:
        run_one(manifest, 0, own_word="finished")
    (tmp_path / "sweep.jsonl").unlink()
    with open_one(tmp_path, points(2, 4)) as manifest:
        assert states(manifest) == [State.finished, State.pending]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 9}', b'{"schema": 1, "jobs": 3}'])
def test_a_damaged_record_is_told_and_left_alone(tmp_path, content):
    (tmp_path / "sweep.json").write_bytes(content)
    with pytest.raises(InputError, match=r"sweep\.json"):
        open_one(tmp_path, points(2))
    assert (tmp_path / "sweep.json").read_bytes() == content


def test_a_record_leads_out_of_no_folder(tmp_path):
    with open_one(tmp_path, points(2)):
        pass
    record = json.loads((tmp_path / "sweep.json").read_text())
    for folder in ("/etc", "../other", "a/../../b"):
        record["jobs"][0]["folder"] = folder
        (tmp_path / "sweep.json").write_text(json.dumps(record))
        with pytest.raises(InputError, match="damaged"):
            open_one(tmp_path, points(2))


@pytest.mark.parametrize("modes", [{"torn": True}, {"power": True}])
def test_death_at_every_write_loses_no_job(tmp_path, modes):
    """Begins a sweep, runs its two jobs, and is killed at each call: the next start knows how far it was."""

    def begin(folder):
        with open_one(folder, points(2, 4)) as manifest:
            run_one(manifest, 0, own_word="finished")
            run_one(manifest, 1, Outcome(State.failed, "KeyError"), own_word="failed")

    for count in range(1, 1000):
        folder = tmp_path / str(count)
        is_whole = run_dying(count, functools.partial(begin, folder), **modes)
        ended = [(folder / name / "ended").exists() for name in ("0_rank-2", "1_rank-4")]
        with open_one(folder, points(2, 4)) as manifest:
            assert sorted(manifest.entries) == [0, 1]
            for state, word, has_ended in zip(states(manifest), (State.finished, State.failed), ended, strict=True):
                assert state is word if has_ended else state in (State.interrupted, State.pending), (count, state)
            run_one(manifest, 1, own_word="finished")
            assert states(manifest)[1] is State.finished
        assert not list(folder.glob(".*.tmp"))
        if is_whole:
            break
    assert count > 20


def test_death_while_points_are_added_leaves_the_old_ones_or_all(tmp_path):
    def extend(folder):
        with open_one(folder, points(2, 4, 8), extend=True):
            pass

    with open_one(tmp_path / "before", points(4, 8)) as manifest:
        run_one(manifest, 0)
    for count in range(1, 1000):
        folder = tmp_path / str(count)
        shutil.copytree(tmp_path / "before", folder)
        is_whole = run_dying(count, functools.partial(extend, folder))
        with open_one(folder, points(2, 4, 8), extend=True) as manifest:
            assert [manifest.entries[n].folder for n in range(3)] == ["0_rank-4", "1_rank-8", "2_rank-2"]
            assert states(manifest) == [State.finished, State.pending, State.pending]
        if is_whole:
            break
    assert count > 5


def test_a_job_of_a_dead_launcher_is_waited_for(tmp_path, monkeypatch, caplog):
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with open_one(tmp_path, points(2)) as manifest:
        run_one(manifest, 0, None, pid=sleeper.pid)
        assert states(manifest) == [State.running] and manifest.list_open() == []
    monkeypatch.setattr(manifest_module, "ORPHAN_SECONDS", 0.3)
    with pytest.raises(BusyError, match=f"job 0 runs as pid {sleeper.pid}"):
        open_one(tmp_path, points(2))
    monkeypatch.setattr(manifest_module, "ORPHAN_SECONDS", 30)
    ends = threading.Timer(0.3, lambda: sleeper.communicate(b"\n"))
    ends.start()
    with open_one(tmp_path, points(2)) as manifest:
        assert states(manifest) == [State.interrupted]
    ends.join()
    assert "still runs" in caplog.text


def test_no_secret_gets_into_the_record(tmp_path):
    secret = "canary-4711"
    some = [
        dataclasses.replace(point(rank, api_key=secret), overrides=(f"lora.rank={rank}", f"hub.api_key={secret}"))
        for rank in (2, 4)
    ]
    facts = {"command": f"train.py hub.api_key={secret}", "arguments": ["hub.api_key=***"]}
    with open_one(tmp_path, some, facts=facts) as manifest:
        assert manifest.find_entry(["lora.rank=4", f"hub.api_key={secret}"]).number == 1
        run_one(manifest, 0, Outcome(State.failed, "no such user https://me:canary-4711@host"))
    text = (tmp_path / "sweep.json").read_text() + (tmp_path / "sweep.jsonl").read_text()
    assert secret not in text.replace(facts["command"], "")
    with open_one(tmp_path, some) as manifest:
        assert numbers(manifest.list_open()) == [0, 1]
    two = [dataclasses.replace(p, overrides=(f"hub.api_key={key}",)) for p, key in zip(points(1, 2), "ab", strict=True)]
    with pytest.raises(ConfigError, match="secret only"):
        open_one(tmp_path / "other", two)


def test_the_same_point_twice_is_one_job(tmp_path):
    again = dataclasses.replace(point(2), overrides=("lora.rank=02",))
    with open_one(tmp_path, [point(2), again, point(4)]) as manifest:
        assert len(manifest.entries) == 2
        assert [manifest.find_entry([f"lora.rank={rank}"]).number for rank in ("2", "02", "4")] == [0, 0, 1]


def test_jobs_cannot_share_a_folder(tmp_path):
    some = [dataclasses.replace(p, folder_as=lambda number: "same") for p in points(2, 4)]
    with pytest.raises(ConfigError, match="cannot share a folder"):
        open_one(tmp_path, some)


def test_other_code_is_told(tmp_path, caplog):
    facts = {"git": {"commit": "abc"}, "patch": None}
    with open_one(tmp_path, points(2), facts=facts):
        pass
    with open_one(tmp_path, points(2), facts=facts):
        pass
    assert not caplog.records
    with open_one(tmp_path, points(2), facts=facts | {"patch": "1f"}):
        pass
    assert "other uncommitted changes" in caplog.text
    with open_one(tmp_path, points(2), facts={"git": {"commit": "def"}}):
        pass
    assert "commit def" in caplog.text


def test_a_search_adds_its_jobs_as_it_asks_for_them(tmp_path):
    space = {"lora.rank": "range(1,65)"}
    with open_one(tmp_path, [point(1)], space=space) as manifest:
        assert manifest.entries == {} and manifest.list_open() == []
        assert manifest.add(point(16)).folder == "0_rank-16" and manifest.add(point(3)).number == 1
        run_one(manifest, 0)
    with open_one(tmp_path, [point(1)], space=space) as manifest:
        assert states(manifest) == [State.finished, State.pending]
        assert manifest.config_of(manifest.entries[1]) == {"lora.rank": 3, "seed": 0}
        assert manifest.find_entry(["lora.rank=3"]).number == 1 and manifest.add(point(3)).number == 2
    with pytest.raises(ConfigError, match=r"lora\.rank: .* another space"):
        open_one(tmp_path, [point(1)], space={"lora.rank": "range(1,9)"})
    with pytest.raises(ConfigError, match=r"seed: is another value"):
        open_one(tmp_path, [point(1, seed=1)], space=space)
    with pytest.raises(ConfigError, match="a grid; the folder holds a search"):
        open_one(tmp_path, points(1))


def test_the_end_is_told_of_all_attempts(tmp_path):
    with open_one(tmp_path, points(2, 4), facts={"constants": ["seed=3"]}) as manifest:
        run_one(manifest, 0)
        first, second = make_reports(manifest)
    assert (first.state, first.value, first.seconds >= 0) == (State.finished, 1.5, True)
    assert list(second.all_overrides) == ["seed=3", "lora.rank=4"] and second.seconds is None


def test_thousands_of_jobs_take_little_time(tmp_path):
    many = points(*range(1000))
    with open_one(tmp_path, many) as manifest:
        run_one(manifest, 999)
    assert os.path.getsize(tmp_path / "sweep.json") < 500_000
    with open_one(tmp_path, many) as manifest:
        assert len(manifest.list_open()) == 999


def test_every_value_of_a_job_comes_back(tmp_path):
    for number, value in enumerate([None, 1.5, float("inf"), (1.0, 2.0), "text", {"loss": 1}]):
        with open_one(tmp_path / str(number), points(2)) as manifest:
            run_one(manifest, 0, dataclasses.replace(FINISHED, value=value))
        with open_one(tmp_path / str(number), points(2)) as manifest:
            assert manifest.find_statuses()[0].value == (list(value) if isinstance(value, tuple) else value)
