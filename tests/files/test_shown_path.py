"""Paths as a person types them."""

import os
from pathlib import Path

from llama_exp.files.shown_path import show_path


def test_below_the_working_folder_it_is_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert show_path(tmp_path / "a" / "b") == os.path.join("a", "b")
    assert show_path(tmp_path.parent / "c") == str(tmp_path.parent / "c")
    assert show_path(Path("a/b")) == "a/b"


def test_a_working_folder_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert show_path(tmp_path / "a") == str(tmp_path / "a")
