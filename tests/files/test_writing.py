"""Files are whole, private, and survive a power cut."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from llama_exp.errors import ExitCode, StorageError
from llama_exp.files.appended_file import AppendedFile
from llama_exp.files.json_file import read_lines, read_record
from llama_exp.files.writing import (
    append_line,
    make_folder,
    move,
    remove_drafts,
    replace_link,
    replaced,
    set_aside,
    write_blocks,
    write_json,
    write_text,
)


def test_write_replaces_and_leaves_no_draft(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    write_json(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 2}
    assert os.listdir(tmp_path) == ["a.json"]


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        write_text(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
    problem = caught.value.problems[0]
    assert problem.where == str(file) and "ENOSPC" in problem.found and "free some space" in problem.action


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path, umask):
    old = os.umask(umask)
    try:
        make_folder(tmp_path / "a" / "b")
        write_text(tmp_path / "a" / "text", "x")
        appended = AppendedFile(tmp_path / "a" / "log")
        appended.append("x")
        appended.close()
    finally:
        os.umask(old)
    for path in (tmp_path / "a").rglob("*"):
        assert path.stat().st_mode & 0o022 == 0


def below_file(tmp_path):
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "run"


def is_file(tmp_path):
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


def is_dangling_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    return tmp_path / "link"


@pytest.mark.parametrize(
    "where",
    [below_file, is_file, is_dangling_link, lambda tmp_path: tmp_path / ("x" * 300), lambda _: Path("/proc/run"),
     lambda tmp_path: tmp_path / "a\0b"],
    ids=["below a file", "a file", "a dangling link", "too long", "read-only", "NUL"],
)  # fmt: skip
def test_impossible_folders_are_storage_errors_with_all_four_parts(tmp_path, where):
    with pytest.raises(StorageError) as caught:
        make_folder(where(tmp_path))
    assert caught.value.exit_code is ExitCode.STORAGE
    problem = caught.value.problems[0]
    assert problem.what and problem.where and problem.found and "hydra.run.dir" in problem.action
    assert len(str(caught.value)) < 700


def test_undecodable_folder_names_work(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    make_folder(folder)
    write_json(folder / "a.json", {"folder": folder})
    assert "udce9" in (folder / "a.json").read_text()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("a mistake"), KeyboardInterrupt()]
)
def test_a_draft_that_is_not_finished_leaves_the_old_file(tmp_path, error):
    (tmp_path / "a.png").write_text("old")
    with pytest.raises(type(error)), replaced(tmp_path / "a.png") as draft:
        draft.write_text("half")
        raise error
    assert os.listdir(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_text() == "old"


def test_a_file_has_its_name_after_its_content_is_on_the_disk(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def renamed(source, target):
        events.append("renamed")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    with replaced(tmp_path / "a") as draft:
        draft.write_text("x")
    assert events == [str(draft), "renamed", str(tmp_path)]


def test_a_stream_is_new_or_goes_on_where_it_broke_off(tmp_path):
    hasher = hashlib.sha256()
    assert write_blocks(tmp_path / "a", [b"one", memoryview(b"two")], hasher=hasher) == 6
    assert hasher.hexdigest() == hashlib.sha256(b"onetwo").hexdigest()
    with pytest.raises(FileExistsError):
        write_blocks(tmp_path / "a", [b"x"])
    assert write_blocks(tmp_path / "a", [b"TWO!"], start=3) == 4
    assert (tmp_path / "a").read_bytes() == b"oneTWO!"
    write_blocks(tmp_path / "b", [b"x"], start=0)
    assert (tmp_path / "b").read_bytes() == b"x"


def test_a_stream_that_breaks_off_leaves_what_arrived(tmp_path):
    def blocks():
        yield b"one"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        write_blocks(tmp_path / "a", blocks(), start=0)
    assert (tmp_path / "a").read_bytes() == b"one"


def test_lines_of_several_writers_are_whole(tmp_path):
    for number in range(3):
        append_line(tmp_path / "sweep" / "lines", {"job": number})
    with (tmp_path / "sweep" / "lines").open("ab") as file:
        file.write(b'{"job": 3')  # cut short by a kill
    assert read_lines(tmp_path / "sweep" / "lines") == [{"job": 0}, {"job": 1}, {"job": 2}]
    assert (tmp_path / "sweep" / "lines").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [None, b"", b'{"a": 1', b"[1]", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xff"])
def test_a_record_that_is_missing_torn_or_foreign_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    assert read_record(tmp_path / "a.json") is None


def test_what_is_set_aside_gets_the_first_free_name(tmp_path):
    for number in (1, 2):
        (tmp_path / "step").mkdir()
        assert set_aside(tmp_path / "step", "corrupt") == tmp_path / f"step.corrupt-{number}"
    move(tmp_path / "step.corrupt-1", tmp_path / "step")
    assert sorted(os.listdir(tmp_path)) == ["step", "step.corrupt-2"]


def test_a_link_is_replaced_in_one_step(tmp_path):
    for target in ("one", "two"):
        replace_link(tmp_path / "link", target)
        assert os.readlink(tmp_path / "link") == target and os.listdir(tmp_path) == ["link"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        replace_link(tmp_path / "folder", "one")
    assert sorted(os.listdir(tmp_path)) == ["folder", "link"]


def test_drafts_of_killed_processes_are_removed(tmp_path):
    names = [".a.json.0f.tmp", ".b.json.0f.tmp", "a.json", ".a.json"]
    for name in names:
        (tmp_path / name).write_text("")
    remove_drafts(tmp_path / "a.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])


def test_a_line_begins_behind_half_of_one(tmp_path):
    path = tmp_path / "lines"
    append_line(path, {"job": 0})
    with path.open("ab") as file:
        file.write(b'{"job": 1')
    append_line(path, {"job": 2})
    assert path.read_text().splitlines() == ['{"job": 0}', '{"job": 1', '{"job": 2}']
