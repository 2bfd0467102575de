"""`latest`: a link to the run that was started last, and what it stands for today."""

import logging
import os

import pytest

from llama_exp.files.latest import is_latest, point_latest_to, without_latest


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two run folders below `outputs/default`, which is relative to the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / "outputs/default" / name / "model").mkdir(parents=True)
    return tmp_path / "outputs/default"


def test_it_leads_to_the_run_that_was_started_last(runs):
    for name in ("one", "two", "one"):
        point_latest_to(runs / name)
        assert os.readlink(runs / "latest") == name  # relative: the folder of all runs may move
        assert sorted(os.listdir(runs)) == ["latest", "one", "two"]


def test_readers_meet_the_old_or_the_new_one_never_none(runs, monkeypatch):
    point_latest_to(runs / "one")
    replace = os.replace

    def watched(source, target):
        assert os.readlink(runs / "latest") == "one"
        replace(source, target)
        assert os.readlink(runs / "latest") == "two"

    monkeypatch.setattr(os, "replace", watched)
    point_latest_to(runs / "two")


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text("mine")])
def test_what_is_somebodys_own_is_left_alone(runs, caplog, make):
    make(runs / "latest")
    with caplog.at_level(logging.INFO):
        point_latest_to(runs / "one")
    assert not (runs / "latest").is_symlink() and "somebody's own" in caplog.text


def test_a_file_system_without_links_is_a_log_line(runs, monkeypatch, caplog):
    def fail(*_, **__):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", fail)
    with caplog.at_level(logging.INFO):
        point_latest_to(runs / "one")
    assert "latest is not made: Operation not permitted" in caplog.text
    assert sorted(os.listdir(runs)) == ["one", "two"]


def test_a_place_is_recorded_as_what_it_is_today(runs):
    point_latest_to(runs / "two")
    assert is_latest(runs / "latest")
    assert without_latest("outputs/default/latest") == "outputs/default/two"
    assert without_latest("outputs/default/latest/model") == "outputs/default/two/model"
    assert without_latest(str(runs / "latest" / "model")) == str(runs / "two" / "model")


@pytest.mark.parametrize(
    "text", ["latest", "hf://user/latest", "outputs/other/latest", "a\0/latest", "llama2_7b_en", ""]
)
def test_other_texts_stay(runs, text):
    point_latest_to(runs / "two")
    assert without_latest(text) == text


def test_other_links_stay_as_the_user_wrote_them(runs):
    (runs / "mine").symlink_to("one")
    (runs / "three" / "latest").mkdir(parents=True)
    for text in ("outputs/default/mine/model", "outputs/default/three/latest"):
        assert without_latest(text) == text
