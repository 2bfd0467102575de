"""A sweep on the command line, whole but for the runs, which are fakes: its folder, its manifest, what goes on."""

import json
import os
import re
import signal
import sys
import types

import pytest

from llama_exp import train_command
from llama_exp.console import logs
from llama_exp.errors import InputError, Preempted, Problem
from llama_exp.run import sweep
from llama_exp.signals import Stopped
from llama_exp.sweeps.journal import append_begin
from llama_exp.sweeps.record import read_record

GRID = ["-m", "lora.rank=2,3,4", "hydra/launcher=basic"]
TROUBLE = Problem("what", "where", "found", "action")


class Runs:
    """Stands in for whole runs: writes what a run leaves, and ends as `endings` says for its rank."""

    def __init__(self):
        self.seen, self.endings = [], {}

    def run_job(self, config, overrides, folder, group=None, is_chosen=True):
        rank = config.lora.rank
        self.seen.append((rank, config.resume))
        folder.mkdir(parents=True, exist_ok=True)
        ending = self.endings.get(rank)
        (folder / "run.json").write_text("{}")
        if ending == "gone":  # as a killed process: nothing runs behind it, and no summary
            raise SystemExit(9)
        status = "finished" if ending is None else "preempted" if isinstance(ending, Preempted) else "failed"
        summary = {"status": status, "exit_code": 0, "validation": {"last": rank * 1.5}, "group": group}
        (folder / "summary.json").write_text(json.dumps(summary))
        if ending is not None:
            raise ending
        return rank * 1.5

    @property
    def ranks(self):
        ranks = [rank for rank, _ in self.seen]
        self.seen.clear()
        return ranks


@pytest.fixture
def runs(tmp_path, monkeypatch):
    fake, module = Runs(), types.ModuleType("llama_exp.run.job")
    module.run_job = fake.run_job
    monkeypatch.setitem(sys.modules, "llama_exp.run.job", module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    umask = os.umask(0o022)
    yield fake
    os.umask(umask)
    logs.detach_console()


def code_of(*arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *arguments])
        try:
            train_command.main(list(arguments))
        except SystemExit as stop:
            return stop.code
    return 0


def sweeps(tmp_path):
    return sorted(tmp_path.glob("outputs/default/sweeps/*"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_sweeps_of_one_second_have_folders_of_their_own(tmp_path, runs):
    config = tmp_path / "conf" / "sweep"
    config.mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweep:\n    dir: outputs/default/sweeps/${now:%Y}\n"
    (config / "here.yaml").write_text(text)
    line = ["--config-dir", str(tmp_path / "conf"), "sweep=here", "hydra/launcher=basic", "seed=0,1"]
    assert [code_of(*line) for _ in range(3)] == [0, 0, 0]
    names = [path.name for path in sweeps(tmp_path)]
    assert names == [names[0], f"{names[0]}-2", f"{names[0]}-3"]


def test_one_that_was_quicker_gets_the_name(tmp_path, runs, monkeypatch):
    claimed, claim = [], sweep.claim_folder

    def claim_late(folder):
        claimed.append(folder)
        if len(claimed) == 1:
            folder.mkdir(parents=True)  # the other sweep, between our look and our claim
        return claim(folder)

    monkeypatch.setattr(sweep, "claim_folder", claim_late)
    assert code_of(*GRID) == 0
    assert len(claimed) == 2 and claimed[0] != claimed[1]


def test_what_is_only_shown_makes_no_folder(tmp_path, runs, capsys):
    assert code_of(*GRID, "--cfg", "job") == 0
    assert not (tmp_path / "outputs").exists() and runs.ranks == []


def test_the_same_command_finishes_what_is_left(tmp_path, runs, capsys):
    """W05: one job fails, the sweep is cut in the next; finished folders are untouched byte for byte."""
    runs.endings = {3: InputError(TROUBLE), 4: "gone"}
    assert code_of(*GRID) == 9 and runs.ranks == [2, 3, 4]
    (folder,) = sweeps(tmp_path)
    before = contents(folder / "0_lora.rank-2")
    capsys.readouterr()
    runs.endings = {}
    assert code_of(*GRID, "resume=auto") == 0
    assert runs.seen == [(3, "auto"), (4, "auto")] and runs.ranks
    assert contents(folder / "0_lora.rank-2") == before and sweeps(tmp_path) == [folder]
    told = capsys.readouterr().err
    assert (
        "goes on with the sweep in" in told and "job 0 is finished and left as it is" in told and "3 finished" in told
    )
    assert code_of(*GRID, "resume=auto") == 0 and runs.ranks == []
    assert "nothing is left to do" in capsys.readouterr().err
    assert code_of("-m", "lora.rank=4,2,3", "hydra/launcher=basic", "resume=auto", "runtime.threads=1") == 0
    assert runs.ranks == [] and len(sweeps(tmp_path)) == 1


def test_a_failed_job_is_skipped_on_request(tmp_path, runs):
    runs.endings = {3: InputError(TROUBLE)}
    assert code_of(*GRID) == 7
    runs.endings = {}
    skip = "hydra.launcher.on_failed=skip"
    assert code_of(*GRID, "resume=auto", skip) == 7 and runs.ranks == [2, 3, 4]
    more = ["-m", "lora.rank=2,3,4,5", "hydra/launcher=basic", "resume=auto", "hydra.launcher.extend=true"]
    assert code_of(*more, skip) == 7 and runs.ranks == [5]
    (folder,) = sweeps(tmp_path)
    assert code_of(f"resume={folder}") == 0 and runs.ranks == [3], "skipping held for that start alone"
    assert code_of(*GRID, "hydra.launcher.on_failed=maybe") == 2 and code_of(*GRID, "hydra.launcher.extend=3") == 2


def test_without_a_sweep_of_these_points_a_new_one_begins(tmp_path, runs, capsys):
    assert code_of(*GRID) == 0
    assert code_of("-m", "lora.rank=2,3", "hydra/launcher=basic", "resume=auto") == 0
    assert len(sweeps(tmp_path)) == 2 and "finds no sweep of these points" in capsys.readouterr().err


def test_another_grid_in_the_same_folder_is_refused_or_added(tmp_path, runs, capsys):
    """W07."""
    place = f"hydra.sweep.dir={tmp_path}/here"
    assert code_of(*GRID, place) == 0 and runs.ranks == [2, 3, 4]
    more = ["-m", "lora.rank=1,2,3,4", "hydra/launcher=basic", place]
    assert code_of(*more) == 2 and "holds a sweep already" in capsys.readouterr().err
    assert code_of(*more, "resume=auto") == 2 and "1 added: lora.rank=1" in capsys.readouterr().err
    assert code_of("-m", "lora.rank=2,3", "hydra/launcher=basic", place, "resume=auto", "seed=1") == 2
    assert "seed: is another value" in capsys.readouterr().err and runs.ranks == []
    assert code_of(*more, "resume=auto", "hydra.launcher.extend=true") == 0 and runs.ranks == [1]
    assert [entry.folder for entry in read_record(tmp_path / "here").entries] == [
        *("0_lora.rank-2", "1_lora.rank-3", "2_lora.rank-4", "3_lora.rank-1")
    ]
    folders = sorted(path.name for path in (tmp_path / "here").iterdir() if path.is_dir())
    assert folders == ["0_lora.rank-2", "1_lora.rank-3", "2_lora.rank-4", "3_lora.rank-1"]
    assert code_of(f"resume={tmp_path}/here") == 0 and runs.ranks == []


def test_points_are_added_to_the_newest_sweep(tmp_path, runs):
    assert code_of(*GRID) == 0 and runs.ranks == [2, 3, 4]
    more = ["-m", "lora.rank=2,3,4,5", "hydra/launcher=basic", "resume=auto", "hydra.launcher.extend=true"]
    assert code_of(*more) == 0 and runs.ranks == [5] and len(sweeps(tmp_path)) == 1


def test_a_folder_of_a_sweep_is_enough_to_go_on(tmp_path, runs, monkeypatch, capsys):
    (tmp_path / "text.txt").write_text("a")
    runs.endings = {3: "gone"}
    assert code_of(*GRID, "dataset=text_files", "dataset.files=text.txt") == 9
    (folder,) = sweeps(tmp_path)
    runs.endings = {}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    runs.seen.clear()
    assert code_of(f"resume=../{folder.relative_to(tmp_path)}", "runtime.threads=1", "logger.mode=disabled") == 0
    assert runs.ranks == [3, 4] and not list(elsewhere.iterdir())
    monkeypatch.chdir(elsewhere)
    capsys.readouterr()
    assert code_of(f"resume={folder}", "lora.rank=8") == 2
    told = capsys.readouterr().err
    assert "lora.rank: cannot be given beside resume=<sweep folder>" in told
    (fix,) = re.findall(r"resume=auto (hydra\.sweep\.dir=\S+)", told)
    monkeypatch.chdir(tmp_path)
    assert code_of(*GRID, "dataset=text_files", "dataset.files=text.txt", "resume=auto", fix) == 0 and runs.ranks == []


def test_a_sweep_that_cannot_be_repeated_from_its_record_is_told(tmp_path, runs, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(
        "class Tell:\n    def __init__(self, api_key): ...\n    def on_metrics(self, row): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    secret = "+trainer.callbacks.mine={_target_: mine.Tell, api_key: canary-4711}"
    line = [*GRID, secret, "trusted_modules=[mine]"]
    assert code_of(*line) == 0
    (folder,) = sweeps(tmp_path)
    assert code_of(f"resume={folder}") == 2
    told = capsys.readouterr().err
    assert "holds a secret" in told and "canary" not in told
    assert not any(b"canary" in path.read_bytes() for path in folder.iterdir() if path.is_file())
    assert code_of(*line, "resume=auto") == 0
    record = json.loads((folder / "sweep.json").read_text())
    record["working_folder"] = str(tmp_path / "gone")
    record["arguments"] = GRID
    (folder / "sweep.json").write_text(json.dumps(record))
    assert code_of(f"resume={folder}") == 2 and "is gone" in capsys.readouterr().err


def test_a_second_sweep_on_a_folder_in_use(tmp_path, runs, capsys):
    """W11."""
    place = f"hydra.sweep.dir={tmp_path}/here"
    inner = []

    def run_job(*arguments, **more):
        inner.append(code_of(*GRID, place, "resume=auto"))
        return 1.0

    sys.modules["llama_exp.run.job"].run_job = run_job
    assert code_of("-m", "lora.rank=2", "hydra/launcher=basic", place) == 0
    assert inner == [6] and "sweep folder is in use by another process" in capsys.readouterr().err


def test_a_job_goes_on_by_itself_and_the_sweep_knows(tmp_path, runs, capsys):
    runs.endings = {3: Preempted(TROUBLE)}
    assert code_of(*GRID) == 75
    (folder,) = sweeps(tmp_path)
    runs.endings = {}
    runs.seen.clear()
    job = folder / "1_lora.rank-3"
    assert code_of("lora.rank=3", f"resume={job}") == 0 and runs.seen == [(3, str(job))]
    events = [json.loads(line) for line in (folder / "sweep.jsonl").read_text().splitlines()]
    assert [(e["event"], e["job"], e["attempt"]) for e in events[-2:]] == [("begin", 1, 2), ("end", 1, 2)]
    runs.seen.clear()
    assert code_of(*GRID, "resume=auto") == 0 and runs.ranks == [4]


def test_a_preempted_job_goes_on_in_a_sweep_that_was_started_afresh(tmp_path, runs):
    """As a scheduler starts a job again: the sweep's command has no `resume`."""
    place = f"hydra.sweep.dir={tmp_path}/here"
    runs.endings = {2: Preempted(TROUBLE)}
    assert code_of(*GRID, place) == 75
    node = types.SimpleNamespace(
        runtime=types.SimpleNamespace(output_dir=str(tmp_path / "here/0_lora.rank-2")),
        sweep=types.SimpleNamespace(dir=f"{tmp_path}/here"),
        overrides=types.SimpleNamespace(task=["lora.rank=2"]),
        launcher={},
    )
    from llama_exp.config.check import check_arguments
    from llama_exp.run.sweep_job import SweepJob

    place = SweepJob(node, in_sweep=True)
    config = check_arguments(["lora.rank=2"]).config
    assert place.run(config, lambda own: own.resume) == "auto"


def test_a_job_that_runs_is_not_started_once_more(tmp_path, runs, capsys):
    assert code_of(*GRID) == 0
    (folder,) = sweeps(tmp_path)
    append_begin(folder, 1, 2, os.getpid())
    before = (folder / "sweep.jsonl").read_bytes()
    runs.seen.clear()
    assert code_of("lora.rank=3", f"resume={folder}/1_lora.rank-3") == 6 and runs.ranks == []
    assert "job 1 runs as pid" in capsys.readouterr().err and (folder / "sweep.jsonl").read_bytes() == before


def test_other_launchers_numbers_do_not_move_a_job(tmp_path, runs):
    """Its folder is the record's, and Hydra's empty one is gone."""
    place = f"hydra.sweep.dir={tmp_path}/here"
    runs.endings = {4: "gone"}
    assert code_of(*GRID, place) == 9
    runs.endings = {}
    assert code_of("-m", "lora.rank=4,3,2", "hydra/launcher=basic", place, "resume=auto") == 0
    names = sorted(path.name for path in (tmp_path / "here").iterdir() if path.is_dir())
    assert names == ["0_lora.rank-2", "1_lora.rank-3", "2_lora.rank-4"]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_what_is_left_is_told_when_a_signal_ends_somebody_elses_launcher(runs, monkeypatch, capsys, number, code):
    def launch(arguments, job):
        raise Stopped(number)

    monkeypatch.setattr(sweep, "run_hydra", launch)
    assert code_of(*GRID) == code
    said = capsys.readouterr().err
    assert "left: job 0-2; go on with" in said and "the sweep in outputs/default/sweeps/" in said


def test_the_best_job_is_the_one_with_the_best_objective(runs, capsys):
    assert code_of("-m", "lora.rank=4,16,8", "hydra/launcher=basic", "objective_metric=tokens_per_second") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.endswith(" best")]
    assert len(lines) == 1 and "lora.rank=16" in lines[0] and "24.0000" in lines[0]


def test_a_sweep_goes_on_with_the_figure_that_it_began_with(runs, tmp_path, capsys):
    arguments = ["-m", "lora.rank=4,8", "hydra/launcher=basic", "hydra.sweep.dir=sweep"]
    assert code_of(*arguments) == 0
    assert code_of(*arguments, "resume=auto", "objective_metric=train_loss") == 2
    told = capsys.readouterr().err
    assert "objective_metric: the sweep compares its jobs by another figure" in told
    assert "set objective_metric=validation.loss" in told
    assert code_of(*arguments, "resume=auto", "objective_metric=validation.loss") == 0
