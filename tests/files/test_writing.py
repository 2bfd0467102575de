"""Files are strict, whole, private and cut back exactly."""

import datetime
import enum
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_exp.errors import ExitCode, StorageError
from llama_exp.files import writing as storage
from llama_exp.files.appended_file import AppendedFile
from llama_exp.files.json_text import dump_json
from llama_exp.files.writing import make_folder, write_json, write_text


class Colour(enum.Enum):
    red = "red"


def refuse_constants(name):
    raise ValueError(name)


def test_json_is_strict():
    value = {
        "nan": float("nan"),
        "infinities": (float("inf"), -np.inf),
        "numpy": [np.float32(0.5), np.int64(3), np.bool_(True), np.array(2.0)],
        "path": Path("/a/b"),
        "enum": Colour.red,
        "time": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "set": {2, 1},
        3: None,
    }
    assert json.loads(dump_json(value), parse_constant=refuse_constants) == {
        "nan": "NaN",
        "infinities": ["Infinity", "-Infinity"],
        "numpy": [0.5, 3, True, 2.0],
        "path": "/a/b",
        "enum": "red",
        "time": "2026-01-02T00:00:00+00:00",
        "set": [1, 2],
        "3": None,
    }


@given(st.text())
def test_json_of_any_text_is_one_ascii_line(text):
    line = dump_json({"name": text})
    assert line.isascii() and len(line.splitlines()) == 1


def test_json_refuses_what_it_has_no_form_for():
    with pytest.raises(TypeError, match="object"):
        dump_json({"a": object()})
    with pytest.raises(TypeError, match="ndarray"):
        dump_json(np.zeros(3))


def test_json_masks_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", 'quote"canary')
    assert json.loads(dump_json({"a": 'x quote"canary', "api_key": "short"})) == {"a": "x ***", "api_key": "***"}


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

    monkeypatch.setattr(storage.os, "fsync", full)
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


def test_appended_file_is_cut_back_to_the_checkpoint(tmp_path):
    file = AppendedFile(tmp_path / "log")
    file.append("one\n")
    state = file.state()
    file.append("two\n")
    again = AppendedFile(tmp_path / "log")
    again.restore(state)
    assert (tmp_path / "log").read_text() == "one\n"
    again.append("zwei\n")
    assert (tmp_path / "log").read_text() == "one\nzwei\n"


def test_appended_file_without_a_checkpoint_starts_over(tmp_path):
    (tmp_path / "log").write_text("from an attempt that died early\n")
    file = AppendedFile(tmp_path / "log")
    assert file.state() == {"offset": 0}
    file.append("one\n")
    assert (tmp_path / "log").read_text() == "one\n"


def test_appended_file_is_left_alone_when_nothing_is_appended(tmp_path):
    (tmp_path / "log").write_text("record\n")
    AppendedFile(tmp_path / "log").close()
    assert (tmp_path / "log").read_text() == "record\n"


def test_appended_file_goes_on_after_close(tmp_path):
    file = AppendedFile(tmp_path / "log")
    file.append("one\n")
    file.close()
    file.append("two\n")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_lost_bytes_are_told(tmp_path, caplog):
    (tmp_path / "log").write_text("one\n")
    AppendedFile(tmp_path / "log").restore({"offset": 100})
    assert "holds 4 of the 100 bytes" in caplog.text
    assert (tmp_path / "log").read_text() == "one\n"


def test_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    file = AppendedFile(tmp_path / "log")
    file.append("one\n")
    write = os.write

    def half_then_full(descriptor, data):
        if len(data) < 4:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:2])

    monkeypatch.setattr(storage.os, "write", half_then_full)
    with pytest.raises(StorageError, match="ENOSPC"):
        file.append("two\n")
    assert (tmp_path / "log").read_text() == "one\n"


APPENDER = """
import sys
from pathlib import Path
from llama_exp.files.metrics_file import MetricsFile
metrics = MetricsFile(Path(sys.argv[1]))
for step in range(10**9):
    metrics.on_metrics({"step": step, "split": "train", "loss": 1.0, "text": "x" * 3000})
    if step == 20:
        print(metrics.state()["offset"], flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.031])
def test_sigkill_while_appending_leaves_a_record_that_can_be_cut_back(tmp_path, delay):
    from llama_exp.files.metrics_file import MetricsFile, read_metrics

    path = tmp_path / "metrics.jsonl"
    process = subprocess.Popen([sys.executable, "-c", APPENDER, str(path)], stdout=subprocess.PIPE, text=True)
    offset = int(process.stdout.readline())
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with path.open("ab") as file:  # what a power cut may leave after the last whole line
        file.write(b'{"step": 99999, "lo')
    metrics = MetricsFile(path)
    metrics.restore({"offset": offset})
    metrics.on_metrics({"step": 21, "split": "train", "loss": 2.0})
    assert [row["step"] for row in read_metrics(path)] == list(range(22))
