"""Cached folders: verified, rebuilt, atomic, safe among processes."""

import json
import logging
import multiprocessing
import os
import time

import pytest

from llama_exp.dataset.cache import MANIFEST, cached_folder, content_key
from llama_exp.errors import StorageError


def builder(calls, content="data"):
    def build(folder):
        calls.append(folder)
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text(content)
        return {"rows": 3}

    return build


def test_a_folder_is_built_once(tmp_path):
    calls = []
    first = cached_folder(tmp_path / "root", "key", builder(calls))
    assert cached_folder(tmp_path / "root", "key", builder(calls)) == first == (tmp_path / "root/key", {"rows": 3})
    assert len(calls) == 1
    assert (tmp_path / "root/key/sub/file").read_text() == "data"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "sub/file").write_text("dat"),
        lambda folder: (folder / "sub/file").write_text("daTa"),
        lambda folder: (folder / "sub/file").unlink(),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_text("{"),
        lambda folder: (folder / MANIFEST).write_text("[]"),
        lambda folder: (folder / MANIFEST).write_text(json.dumps({"files": {"sub/file": {}}, "facts": {}})),
    ],
)
def test_a_damaged_folder_is_built_again_with_a_warning(tmp_path, damage, caplog):
    calls = []
    folder, _ = cached_folder(tmp_path, "key", builder(calls))
    damage(folder)
    assert cached_folder(tmp_path, "key", builder(calls)) == (folder, {"rows": 3})
    assert (folder / "sub/file").read_text() == "data"
    assert len(calls) == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(folder) in caplog.text


def test_a_failed_build_leaves_nothing(tmp_path):
    def build(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        cached_folder(tmp_path, "key", build)
    assert [path.name for path in tmp_path.iterdir()] == ["key.lock"]


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / "key.tmp-0123dead").mkdir()
    (tmp_path / "key.tmp-0123dead" / "half").write_text("x")
    cached_folder(tmp_path, "key", builder([]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.lock"]


def _slow_build(folder):
    with open(folder.parent / "builds", "a") as file:
        file.write("x")
    time.sleep(0.2)
    (folder / "file").write_text("data")
    return {}


def _open(root):
    return os.fspath(cached_folder(root, "key", _slow_build)[0] / "file")


def test_processes_that_want_the_same_folder_build_it_once(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert set(pool.map(_open, [tmp_path] * 3)) == {str(tmp_path / "key/file")}
    assert (tmp_path / "builds").read_text() == "x"


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        cached_folder(tmp_path / "file" / "root", "key", builder([]))
    assert caught.value.problems[0].where == "runtime.cache_dir"


def test_keys_depend_on_content_not_on_order():
    assert content_key(a=1, b=2) == content_key(b=2, a=1) != content_key(a=2, b=1)
