"""A file that only grows is whole after a kill and a full disk, and cut back exactly."""

import os
import signal
import subprocess
import sys
import time

import pytest

from llama_exp.errors import StorageError
from llama_exp.files.appended_file import AppendedFile


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

    monkeypatch.setattr(os, "write", half_then_full)
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


@pytest.mark.parametrize("action", ["append", "restore"])
def test_a_link_is_not_followed(tmp_path, action):
    (tmp_path / "victim").write_text("a long text of somebody's")
    (tmp_path / "log").symlink_to(tmp_path / "victim")
    appended = AppendedFile(tmp_path / "log")
    with pytest.raises(StorageError, match="ELOOP"):
        appended.append("x") if action == "append" else appended.restore({"offset": 3})
    assert (tmp_path / "victim").read_text() == "a long text of somebody's"
