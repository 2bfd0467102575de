"""A run's folder that somebody deletes, moves or replaces ends the run."""

import shutil

import pytest

from llama_exp.errors import StorageError
from llama_exp.files.kept_folder import KeptFolder


@pytest.fixture
def kept(tmp_path):
    (tmp_path / "run").mkdir()
    folder = KeptFolder(tmp_path / "run")
    folder.remember()
    return folder


CALLS = {
    "start": lambda folder: folder.on_start({}),
    "row": lambda folder: folder.on_metrics({"step": 1}),
    "sample": lambda folder: folder.on_sample(1, "a", "ab"),
    "checkpoint": lambda folder: folder.state(),
    "end": lambda folder: folder.require(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_folder_that_stays_is_fine(kept, call, tmp_path):
    (tmp_path / "run" / "file").write_text("x")
    CALLS[call](kept)
    kept.restore(kept.state())


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_one_that_went_is_told_with_what_is_lost(kept, call, how, tmp_path):
    if how == "deleted":
        shutil.rmtree(tmp_path / "run")
    else:
        (tmp_path / "run").rename(tmp_path / "elsewhere")
    if how == "replaced":
        (tmp_path / "run").mkdir()
    with pytest.raises(StorageError) as caught:
        CALLS[call](kept)
    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path / "run") and "the last checkpoint too, is lost" in problem.found
    assert problem.found.startswith("another folder" if how == "replaced" else "there is no such folder")
    kept.on_finish("failed")  # which whatever failed calls


def test_one_that_comes_back_is_the_same(kept, tmp_path):
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(tmp_path / "run")
    kept.require()


def test_nothing_is_compared_before_it_is_remembered(tmp_path):
    KeptFolder(tmp_path / "nowhere").require()
