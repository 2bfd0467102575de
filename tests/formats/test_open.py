"""One door to every format; and folders that appear whole or not at all, whenever the process dies."""

import ctypes
import errno
import fcntl
import json
import os
import sys

import pytest

from llama_exp.errors import InputError, StorageError
from llama_exp.files import whole_folder
from llama_exp.formats import open_checkpoint, read_architecture, writing

# --- which format ----------------------------------------------------------------------------------------------


def rejected(path):
    texts = []
    for function in (read_architecture, lambda path: open_checkpoint(path).__enter__()):
        with pytest.raises(InputError) as raised:
            function(path)
        texts.append(str(raised.value))
    assert texts[0] == texts[1]
    return texts[0]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"registered_name": "x>Y", "config": {}}, "the preset is not a Llama"),
        ({"model_type": "gemma"}, "the checkpoint is not a Llama"),
        ({"architectures": ["X"]}, "the checkpoint is not a Llama"),
        ({"architecture": "resnet"}, "not the configuration of a model"),
        ({}, "not the configuration of a model"),
    ],
)
def test_the_content_of_config_json_decides(tmp_path, document, expected):
    (tmp_path / "config.json").write_text(json.dumps(document))
    assert expected in rejected(tmp_path)


@pytest.mark.parametrize("name", ["model.gguf", "model"])
def test_gguf_is_known_by_its_first_bytes_or_its_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"GGUF")
    assert name in rejected(tmp_path / name)
    (tmp_path / "model.gguf").write_bytes(b"nothing")
    assert "not a model" not in rejected(tmp_path / "model.gguf")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: None])
def test_what_is_neither_folder_nor_file_is_refused(tmp_path, make):
    make(tmp_path / "x.gguf")
    assert str(tmp_path / "x.gguf") in rejected(tmp_path / "x.gguf")


# --- writing ---------------------------------------------------------------------------------------------------


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


OLD, NEW = {"config.json": "old", "README.md": "old"}, {"config.json": "new", "assets/tokenizer/vocabulary.json": "new"}


def write(folder, files):
    with writing(folder) as draft:
        for name, text in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_text(text)


@pytest.fixture
def old(tmp_path):
    write(tmp_path / "a" / "model", OLD)
    return tmp_path / "a" / "model"


def test_a_model_is_replaced_and_nothing_else_remains(old):
    assert content(old) == OLD
    write(old, NEW)
    assert content(old) == NEW and os.listdir(old.parent) == ["model"]


def test_without_a_way_to_swap_two_renames_do(old, monkeypatch):
    monkeypatch.setattr(whole_folder, "_exchange", lambda one, other: False)
    write(old, NEW)
    assert content(old) == NEW and os.listdir(old.parent) == ["model"]
    rename = type(old).rename

    def fail(self, target):
        if ".tmp-" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(type(old), "rename", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        write(old, OLD)
    assert content(old) == NEW and os.listdir(old.parent) == ["model"]


@pytest.mark.parametrize("error", [OSError(28, "No space left"), ValueError("a mistake"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_model(old, error):
    expected = StorageError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), writing(old) as draft:
        (draft / "config.json").write_text("new")
        raise error
    assert content(old) == OLD and os.listdir(old.parent) == ["model"]


def test_a_folder_with_other_things_is_not_replaced(old):
    (old / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match=r"thesis\.tex"):
        write(old, NEW)
    assert content(old) == OLD | {"thesis.tex": "years of work"}
    with pytest.raises(StorageError, match=r"config\.json"):
        write(old / "config.json", NEW)
    os.symlink("nowhere", old.parent / "link")
    with pytest.raises(StorageError, match="link"):
        write(old.parent / "link", NEW)


def test_an_empty_folder_is_filled_and_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", NEW)
    assert content(tmp_path / "empty") == NEW
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        write(tmp_path / "file" / "model", NEW)


EVENTS = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.scandir",
    "shutil.rmtree",
    "ctypes.call_function",
}


def dies_at(step, folder):
    """Whether a child that writes `NEW` was killed before its `step`-th call to the file system."""
    child = os.fork()
    if child == 0:
        calls = 0

        def hook(event, arguments):
            nonlocal calls
            if event in EVENTS:
                calls += 1
                if calls == step:
                    os._exit(137)

        fsync = os.fsync

        def counted(descriptor):
            hook("open", ())
            fsync(descriptor)

        os.fsync = counted
        sys.addaudithook(hook)
        try:
            write(folder, NEW)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "renameat2"), reason="this system cannot swap two folders")
def test_a_process_killed_at_any_moment_leaves_the_old_model_or_the_new_one(tmp_path):
    found, step, drafts = [], 0, 0
    while True:
        step += 1
        folder = tmp_path / str(step) / "model"
        write(folder, OLD)
        died = dies_at(step, folder)
        assert content(folder) in (OLD, NEW), f"killed at step {step}"
        found.append(content(folder) == NEW)
        left = os.listdir(folder.parent)
        assert len(left) <= 2
        drafts += len(left) - 1
        write(folder, NEW)
        assert os.listdir(folder.parent) == ["model"] and content(folder) == NEW
        if not died:
            break
    assert step > 15 and found == sorted(found)  # old up to one moment, new from then on
    assert found[-1] and not found[0] and drafts > 5


def test_only_drafts_of_dead_processes_for_this_folder_are_removed(tmp_path):
    """What is somebody's stays: a draft that is being written, another model's, other people's files, links."""
    stale = tmp_path / "model.tmp-0123abcd"
    (stale / "assets").mkdir(parents=True)
    (stale / "model.safetensors").write_text("half of it")
    for name in (
        "other.tmp-0123abcd",
        "model.tmp-0123",
        "model.tmp-notes",
        "model.tmp-0123abcd.bak",
        "modelxtmp-0123abcd",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "model.tmp-00000001").write_text("a file")
    (tmp_path / "model.tmp-00000002").mkdir()
    (tmp_path / "model.tmp-00000002/thesis.tex").write_text("years of work")
    (tmp_path / "model.tmp-00000003").symlink_to("other.tmp-0123abcd")
    kept = set(os.listdir(tmp_path)) - {stale.name}
    with writing(tmp_path / "model") as live:
        assert set(os.listdir(tmp_path)) == kept | {live.name}
        (live / "config.json").write_text("first")
        write(tmp_path / "model", NEW)
        assert live.is_dir() and content(tmp_path / "model") == NEW
    assert content(tmp_path / "model") == {"config.json": "first"}
    assert set(os.listdir(tmp_path)) == kept | {"model"}


def test_a_draft_taken_for_stale_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    lock, taken = fcntl.flock, []

    def late(descriptor, operation):
        if not taken:
            (draft,) = tmp_path.iterdir()
            taken.append(draft.name)
            draft.rmdir()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    write(tmp_path / "model", NEW)
    assert content(tmp_path / "model") == NEW and os.listdir(tmp_path) == ["model"] and taken


def test_without_locks_no_draft_is_removed(tmp_path, monkeypatch):
    def fail(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    (tmp_path / "model.tmp-0123abcd").mkdir()
    write(tmp_path / "model", NEW)
    assert sorted(os.listdir(tmp_path)) == ["model", "model.tmp-0123abcd"]
