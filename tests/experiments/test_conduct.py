"""The order of stages, what a failure or a signal does to it, and what is recorded; the stages themselves are fakes."""

import json
import os
import signal
from pathlib import Path

import pytest
from tiny_experiment import TINY, write_experiment

from llama_exp import signals
from llama_exp.errors import BusyError, ExitCode, InputError, Interrupted, Preempted
from llama_exp.experiments import conduct as conducting
from llama_exp.experiments.plan import make_plan
from llama_exp.experiments.record import RECORD_FILE, read_record
from llama_exp.experiments.request import Request
from llama_exp.experiments.standing import find_standing
from llama_exp.files.lock import FolderLock
from llama_exp.run import provenance
from llama_exp.sweeps.record import Entry, Record

LATER = "    after: {overrides: ['preset.source={ranks}/model'], grid: {seed: [0, 1]}}\n    alone: {}\n    big:"


class Stages:
    """Stands in for the processes of stages: leaves what each would, and ends with the code of its name."""

    def __init__(self):
        self.seen, self.codes, self.of_runs, self.during = [], {}, {}, {}

    def conduct(self):
        return conducting.conduct(self.plan, ["llama-exp"], "llama-exp experiment tiny").code

    def run(self, arguments, beat):
        values = dict(line.split("=", 1) for line in arguments if "=" in line)
        name = values.get("protocol.stage", "base")
        self.seen.append(name)
        beat()
        if name in self.during:
            self.during[name]()
        code = self.codes.get(name, 0)
        if name == "base":
            _summary(values["hydra.run.dir"], code)
            return code
        count = 2 if name == "after" else 1 if name == "alone" else 4
        codes = self.of_runs.get(name, [code] * count)
        folder = values["hydra.sweep.dir"]
        os.makedirs(folder, exist_ok=True)
        entries = tuple(Entry(number, (), str(number), str(number)) for number in range(count))
        Record("now", {}, None, {}, entries, "x").write(Path(folder))
        for number, of_run in enumerate(codes):
            _summary(f"{folder}/{number}", of_run)
        return code


def _summary(folder, code):
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/summary.json", "w") as file:
        json.dump({"status": "failed" if code else "finished", "exit_code": code}, file)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    write_experiment(folder, TINY.replace("    big:", LATER))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return make_plan(Request("tiny", config_dir="my"), cores=2)


@pytest.fixture
def stages(plan, tmp_path, monkeypatch):
    fake = Stages()
    fake.plan = plan
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conducting, "run_child", fake.run)
    monkeypatch.setattr(signals, "received", lambda: None)  # another test may have had one
    monkeypatch.setattr(provenance, "git_state", lambda source: ({"commit": "0123"}, None))
    return fake


def record():
    return read_record(Request("tiny").folder)


def test_stages_run_in_order_and_a_base_once(stages, capsys):
    assert stages.conduct() == ExitCode.OK
    assert stages.seen == ["base", "ranks", "after", "alone"]
    assert stages.conduct() == ExitCode.OK
    assert stages.seen[4:] == ["ranks", "after", "alone"]
    told = capsys.readouterr().out
    assert "stage 2 of 4: ranks, 4 runs (4 finished)\n  llama-exp train -m --config-dir=my" in told
    assert "finished before" in told


def test_every_start_is_recorded(stages):
    stages.conduct()
    stages.codes["ranks"] = 4
    assert stages.conduct() == ExitCode.STORAGE
    found = record()
    assert [start["exit_code"] for start in found["starts"]] == [0, 4]
    assert [(stage["name"], stage["exit_code"]) for stage in found["starts"][1]["stages"]] == [("ranks", 4)]
    assert found["starts"][0]["versions"]["llama_exp"] and found["starts"][0]["machine"]["cores"]
    assert list(found["stages"]) == ["base", "ranks", "after", "alone"]
    assert found["stages"]["ranks"]["command"].startswith("llama-exp train -m ")
    assert found["stages"]["ranks"]["runs"] == 4


def test_failed_runs_stop_only_what_needs_them(stages, capsys):
    stages.codes["ranks"], stages.of_runs["ranks"] = 7, [0, 3, 0, 0]
    assert stages.conduct() == ExitCode.SWEEP
    assert stages.seen == ["base", "ranks", "alone"]
    told = capsys.readouterr()
    assert "left out: it needs ranks" in told.out
    assert "stage ranks, after; to try them again: llama-exp experiment tiny" in told.err


def test_a_run_that_diverged_is_a_result_and_is_not_tried_again(stages, capsys):
    stages.codes["ranks"], stages.of_runs["ranks"] = 7, [0, 5, 0, 0]
    assert stages.conduct() == ExitCode.OK
    assert stages.seen == ["base", "ranks", "after", "alone"]
    assert "on_failed=skip" not in capsys.readouterr().out
    assert stages.conduct() == ExitCode.OK
    assert "4 runs (3 finished, 1 diverged)" in (told := capsys.readouterr().out)
    assert "hydra.launcher.on_failed=skip" in told


@pytest.mark.parametrize(("code", "left"), [(2, 2), (5, 5), (-9, 7), (75, 75)])
def test_a_base_or_a_stage_that_ends_otherwise_ends_the_experiment(stages, capsys, code, left):
    stages.codes["base"] = code
    assert stages.conduct() == left
    assert stages.seen == ["base"] and record()["starts"][0]["exit_code"] == code
    assert "to go on: llama-exp experiment tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, Interrupted), (signal.SIGTERM, Preempted)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_ends_it_behind_its_stage(stages, number, kind, monkeypatch):
    monkeypatch.setattr(signals, "received", lambda: number if stages.seen == ["base", "ranks"] else None)
    stages.codes["ranks"] = int(kind.exit_code)
    with pytest.raises(kind, match="the same goes on: llama-exp experiment tiny"):
        stages.conduct()
    assert record()["starts"][0]["exit_code"] == kind.exit_code


def test_an_edit_that_makes_other_runs_says_how_to_begin_anew(stages, capsys):
    stages.codes["ranks"] = 2
    assert stages.conduct() == ExitCode.CONFIG
    assert "give outputs/experiments/tiny another name and begin anew" in capsys.readouterr().err


def test_a_start_that_was_killed_has_no_exit_code(stages):
    def die():
        raise SystemExit(9)

    stages.during["ranks"] = die
    with pytest.raises(SystemExit):
        stages.conduct()
    (start,) = record()["starts"]
    assert start["exit_code"] is None and start["stages"][1]["exit_code"] is None
    del stages.during["ranks"]
    assert stages.conduct() == ExitCode.OK and len(record()["starts"]) == 2


def test_a_second_process_is_refused(stages, tmp_path):
    folder = tmp_path / Request("tiny").folder
    folder.mkdir(parents=True)
    lock = FolderLock(folder)
    try:
        with pytest.raises(BusyError, match="another process runs this experiment"):
            stages.conduct()
    finally:
        lock.release()
    assert stages.seen == []


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 9}', '{"schema": 1, "stages": {}, "starts": [1]}', ""])
def test_a_damaged_record_is_named(stages, tmp_path, text):
    folder = tmp_path / Request("tiny").folder
    folder.mkdir(parents=True)
    (folder / RECORD_FILE).write_text(text)
    with pytest.raises(InputError) as caught:
        stages.conduct()
    assert RECORD_FILE in str(caught.value) and "delete it: the runs stay" in str(caught.value)
    assert stages.seen == []
    (folder / RECORD_FILE).unlink()
    assert stages.conduct() == ExitCode.OK


def test_damaged_records_of_runs_count_as_nothing(tmp_path):
    (tmp_path / "sweep.json").write_text("{")
    (tmp_path / "summary.json").write_text("{")
    assert find_standing(tmp_path, 4) == find_standing(tmp_path / "none", 4)
