"""The journal of a sweep: whole lines, whoever writes them, and no word of a line that was cut short."""

import json
import math
import os

import pytest
from fake_sweeps import FolderApp, open_one, points, run_one, states

from llama_exp.sweeps import journal
from llama_exp.sweeps.jobs import Outcome, State
from llama_exp.sweeps.liveness import identify_process, is_alive
from llama_exp.sweeps.reporter import find_by_folder, find_by_overrides


def test_a_line_that_was_cut_short_is_dropped_and_the_next_one_is_whole(tmp_path, caplog):
    journal.append_begin(tmp_path, 0, 1, os.getpid())
    path = tmp_path / "sweep.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"time": "2026", "event": "end", "jo')
    journal.append_end(tmp_path, 1, 1, Outcome(State.finished))
    assert [(entry["event"], entry["job"]) for entry in journal.read(tmp_path, is_first=True)] == [
        ("begin", 0),
        ("end", 1),
    ]
    assert "line 2 is cut short" in caplog.text


@pytest.mark.parametrize(
    "line", [b"\0\0\0\0", b"[]", b"{}", b'{"event": "end"}', b'{"event": 3}', b"\xff", b'{"a": NaN}']
)
def test_garbage_between_lines_does_not_count(tmp_path, line):
    journal.append_begin(tmp_path, 0, 1, os.getpid())
    with (tmp_path / "sweep.jsonl").open("ab") as file:
        file.write(line + b"\n")
    journal.append_begin(tmp_path, 1, 1, os.getpid())
    assert [entry["job"] for entry in journal.read(tmp_path)] == [0, 1]


def test_a_number_that_is_none_comes_back(tmp_path):
    journal.append_end(tmp_path, 0, 1, Outcome(State.finished, value=math.nan))
    (entry,) = journal.read(tmp_path)
    assert math.isnan(journal.value_of(entry))
    assert json.loads((tmp_path / "sweep.jsonl").read_text())["value"] == "NaN"


def test_what_json_cannot_hold_is_told(tmp_path, caplog):
    journal.append_end(tmp_path, 0, 1, Outcome(State.finished, value=object()))
    assert journal.read(tmp_path)[0]["value"] is None and "returned a object" in caplog.text


def test_a_process_is_known_by_its_start_too():
    me = identify_process(os.getpid())
    assert is_alive(me)
    assert not is_alive(me | {"start": me["start"] + 1}), "another process with this number"
    assert not is_alive(me | {"boot": "before the machine was started anew"})
    assert not is_alive(me | {"host": "elsewhere"})
    assert not is_alive({}) and not is_alive({"pid": "1"})


def test_one_that_waits_to_be_reaped_is_dead():
    child = os.fork()
    if child == 0:
        os._exit(0)
    process = identify_process(child)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert not is_alive(process)
    os.waitpid(child, 0)
    assert not is_alive(process)


def test_a_job_elsewhere_tells_of_itself(tmp_path):
    with open_one(tmp_path, points(2, 4)) as manifest:
        reporter = find_by_overrides(tmp_path, ["seed=0", "lora.rank=4"], FolderApp())
        assert reporter.folder == tmp_path / "1_rank-4" and reporter.status.state is State.pending
        reporter.folder.mkdir()
        reporter.begin()
        assert states(manifest) == [State.pending, State.running]
        reporter.end(Outcome(State.failed, "no memory"))
        assert states(manifest)[1] is State.failed
        again = find_by_folder(tmp_path / "1_rank-4", FolderApp())
        again.begin()
        again.end(Outcome(State.finished, value=2))
        status = manifest.find_statuses()[1]
        assert (status.state, status.attempts, status.value) == (State.finished, 2, 2)


def test_who_is_no_job_tells_nothing(tmp_path):
    assert find_by_overrides(tmp_path, ["lora.rank=4"], FolderApp()) is None
    assert find_by_folder(tmp_path / "run", FolderApp()) is None
    with open_one(tmp_path, points(2)) as manifest:
        run_one(manifest, 0)
    assert find_by_overrides(tmp_path, ["lora.rank=5"], FolderApp()) is None
    assert find_by_folder(tmp_path / "9_rank-9", FolderApp()) is None
