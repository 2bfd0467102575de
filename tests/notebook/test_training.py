"""`train`: the same run as the command's, in this process."""

import json
import logging
import os
import sys

import pytest
from made_runs import make_grid
from whole_runs import SMALL, last_wins

from llama_exp import compose, runtime, train
from llama_exp.console import logs
from llama_exp.console.live_area import LiveArea
from llama_exp.errors import ConfigError, InputError, Interrupted, Preempted
from llama_exp.notebook import training
from llama_exp.notebook.cell import Cell, CellLine
from llama_exp.run.folder import RunFolder


@pytest.fixture
def playground(tmp_path, monkeypatch):
    paragraphs = [f"{'abcdefgh'[n % 8] * 3} counts {n} and {n * n}." for n in range(80)]
    (tmp_path / "text.txt").write_text("\n\n".join(paragraphs))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMA_EXP_CACHE", str(tmp_path / "cache"))
    return tmp_path


def small(*overrides):
    backend = f"runtime.backend={os.environ['KERAS_BACKEND']}"
    return last_wins(
        [*SMALL, "dataset.files=[text.txt]", "model.num_layers=1", "logger=none", "trainer.sample_prompts=[]"]
        + ["trainer.validate_every_steps=2", "trainer.max_steps=4", backend, *overrides]
    )


@pytest.mark.neutral
def test_two_runs_in_one_process_one_of_them_stopped_and_continued(playground):
    umask, arguments = os.umask(0o027), sys.argv
    handlers = list(logging.getLogger("llama_exp").handlers)
    try:
        first = train(compose(*small()))
        stops = "trainer.callbacks.stop={_target_:llama_exp.verification.resumption.StopAfter,step:2}"
        config = compose(*small("seed=1", stops))
        with pytest.raises(Preempted, match="resume=auto"):
            train(config)
        second = train(config, "resume=auto")
        assert os.umask(0o027) == 0o027 and sys.argv is arguments
        assert logging.getLogger("llama_exp").handlers == handlers
    finally:
        os.umask(umask)
    assert first.status == second.status == "finished" and first.figure("steps") == second.figure("steps") == 4
    assert len(second.record["starts"]) == 2 and len(first.record["starts"]) == 1
    runs = playground / "outputs" / "default"
    assert first.folder.parent == runs and (runs / "latest").resolve() == second.folder
    assert first.rows[-1]["loss"] != second.rows[-1]["loss"]
    assert first.record["command"].startswith("llama-exp train dataset=text_files")
    assert first.model.generate("abc", max_length=8).startswith("abc") and first.model is first.model


class Runs:
    """In the place of a run: notes what it was asked for, and ends as it is told."""

    def __init__(self, monkeypatch, error=None):
        self.error, self.folders = error, []
        monkeypatch.setattr("llama_exp.run.job.run_job", self)

    def __call__(self, config, overrides, folder, is_chosen):
        self.folders.append(folder)
        assert is_chosen and sys.argv[:2] == ["llama-exp", "train"]
        if self.error is not None:
            raise self.error
        with RunFolder.create(folder) as run:
            run.begin({"seed": config.seed}, overrides, sys.argv, "h")


def test_runs_of_one_second_have_folders_of_their_own(playground, monkeypatch):
    Runs(monkeypatch)
    folders = {train(*small()).folder for _ in range(3)}
    assert len(folders) == 3
    assert train(*small(), folder="elsewhere").folder == playground / "elsewhere"


def test_a_run_that_leaves_nothing_leaves_no_folder(playground, monkeypatch):
    Runs(monkeypatch, InputError.about("a", "b", "c"))
    with pytest.raises(InputError):
        train(*small())
    assert not (playground / "outputs").exists()


def test_an_interruption_is_an_exception_of_its_kind(playground, monkeypatch):
    from llama_exp.errors import Problem

    Runs(monkeypatch, Interrupted(Problem("a", "b", "c", "d")))
    with pytest.raises(Interrupted):
        train(*small())


def test_another_backend_is_refused_with_what_to_do(playground):
    runtime.import_backend()
    other = {"tensorflow": "jax", "jax": "tensorflow"}[os.environ["KERAS_BACKEND"]]
    with pytest.raises(ConfigError, match="restart the kernel"):
        train(*small(f"runtime.backend={other}"))
    assert not (playground / "outputs").exists()


def test_a_sweep_is_gone_on_with_by_its_command(playground):
    make_grid(playground / "sweep", {(8, 1e-3, 0): 2.0})
    (job,) = (path.name for path in (playground / "sweep").iterdir() if path.is_dir())
    with pytest.raises(ConfigError, match="llama-exp train resume=sweep"):
        train(*small("resume=sweep"))
    with pytest.raises(ConfigError, match="is a job of a sweep"):
        train(*small(f"resume='sweep/{job}'"))


# --- the cell


class Published(list):
    """A kernel's publisher of displays."""

    def publish(self, forms, transient, update):
        self.append((forms["text/plain"], transient["display_id"], update))


def test_a_cell_has_one_line_that_is_drawn_anew():
    published = Published()
    cell, texts = Cell(published), iter(["1/2", "1/2", "2/2"])
    line = CellLine(cell, lambda: next(texts, "2/2"))
    line.refresh()
    line.stop()
    again = CellLine(cell, lambda: "writing <the> model")
    again.transient = True
    again.stop()
    assert [text for text, _, _ in published] == ["1/2", "2/2", "writing <the> model", "2/2"]
    assert [update for _, _, update in published] == [False, True, True, True]
    assert len({name for _, name, _ in published}) == 1


def test_in_a_kernel_a_run_shows_itself_in_the_cell(playground, monkeypatch, capsys):
    published = Published()
    shell = type("Shell", (), {"kernel": object(), "display_pub": published})()
    monkeypatch.setitem(sys.modules, "IPython", type("IPython", (), {"get_ipython": staticmethod(lambda: shell)}))
    train(*small("trainer.max_steps=2"))
    assert published[0][0].startswith("0/2") and published[-1][0].startswith("2/2 ━")
    output = capsys.readouterr()
    assert "run folder outputs/default/" in output.out and output.err == ""
    assert LiveArea.canvas is None
    assert json.loads(next(playground.glob("outputs/default/2*/summary.json")).read_text())["status"] == "finished"


@pytest.mark.parametrize("own", [[], [logging.NullHandler()], [logging.StreamHandler()]])
def test_whoever_listened_before_a_run_listens_afterwards_and_nobody_else(own, monkeypatch):
    monkeypatch.setattr(logs.LOGGER, "handlers", list(own))
    with training._console():
        logs.attach_console()
    assert logs.LOGGER.handlers == own
