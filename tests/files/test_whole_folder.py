"""Folders that appear whole or not at all, with what the file system does and does not offer."""

import errno
import fcntl
import os

import pytest

from llama_exp.files import whole_folder as module
from llama_exp.files.whole_folder import remove_folder, remove_stale, whole_folder


def fill(folder, text):
    with whole_folder(folder) as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "file").write_text(text)


@pytest.mark.parametrize("swaps", [True, False])
def test_a_folder_takes_the_place_of_the_old_one(tmp_path, monkeypatch, swaps):
    if not swaps:
        monkeypatch.setattr(module, "_exchange", lambda one, other: False)
    for text in ("old", "new"):
        fill(tmp_path / "folder", text)
        assert (tmp_path / "folder/sub/file").read_text() == text
        assert os.listdir(tmp_path) == ["folder"]


def test_everything_in_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def noted(descriptor):
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), (tmp_path / "folder").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    fill(tmp_path / "folder", "x")
    draft = next(name for name, _ in synced if ".tmp-" in name).split(".tmp-")[0] + ".tmp-"
    before = [name.removeprefix(draft)[8:] for name, exists in synced if not exists]
    assert sorted(before) == ["", "/sub", "/sub/file"]
    assert synced[-1] == (str(tmp_path), True)  # and then the name itself


def test_a_failure_leaves_the_old_folder(tmp_path):
    fill(tmp_path / "folder", "old")
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "folder") as draft:
        (draft / "half").touch()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["folder"] and (tmp_path / "folder/sub/file").read_text() == "old"


def test_who_is_alone_removes_drafts_on_a_file_system_without_locks(tmp_path, monkeypatch):
    def fail(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    for name in ("a.tmp-0123abcd", "b.tmp-0123abcd"):
        (tmp_path / name).mkdir()
    remove_stale(tmp_path, "a")
    assert len(os.listdir(tmp_path)) == 2
    remove_stale(tmp_path, "a", alone=True)
    assert os.listdir(tmp_path) == ["b.tmp-0123abcd"]


def test_a_folder_that_is_removed_is_gone_before_its_content(tmp_path, monkeypatch):
    fill(tmp_path / "folder", "x")
    seen, rmtree = [], module.shutil.rmtree

    def noted(path, **options):
        seen.append((tmp_path / "folder").exists())
        rmtree(path, **options)

    monkeypatch.setattr(module.shutil, "rmtree", noted)
    remove_folder(tmp_path / "folder")
    assert seen == [False] and os.listdir(tmp_path) == []
