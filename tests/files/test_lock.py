"""One process per run folder, and the next one after a death."""

import os
import signal
import subprocess
import sys
import time

import pytest

from llama_exp.console import logs
from llama_exp.errors import BusyError, ExitCode
from llama_exp.files.lock import FolderLock
from llama_exp.run.folder import RunFolder

OWNER = """
import sys, time
from pathlib import Path
from llama_exp.errors import BusyError
from llama_exp.run.folder import RunFolder
print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
try:
    folder = RunFolder.create(Path(sys.argv[1]))
except BusyError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
print("owner", flush=True)
sys.stdin.read()
"""


def start_owner(path, go="/"):
    """A process that owns the folder from the moment the file `go` exists until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path), str(go)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.process
def test_of_twenty_simultaneous_starts_exactly_one_wins(tmp_path):
    processes = [start_owner(tmp_path / "run", tmp_path / "go") for _ in range(20)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    deadline = time.monotonic() + 20
    losers = []
    while len(losers) < 19 and time.monotonic() < deadline:
        losers = [process for process in processes if process.poll() is not None]
        time.sleep(0.05)
    winners = [process for process in processes if process.poll() is None]
    assert len(winners) == 1
    assert winners[0].stdout.readline() == "owner\n"
    for process in losers:
        _, text = process.communicate()
        assert process.returncode == ExitCode.BUSY
        assert f"pid {winners[0].pid} on host " in text and "started 20" in text
    winners[0].communicate()
    assert winners[0].returncode == 0


def test_a_second_process_hears_who_the_owner_is_at_once(tmp_path):
    with RunFolder.create(tmp_path / "run") as folder:
        folder.begin({}, [], ["train.py"], "hash")
        before = {file.name: file.read_bytes() for file in folder.path.iterdir()}
        seconds = []
        while min(seconds, default=1) >= 0.5 and len(seconds) < 6:  # the machine may be busy with other things
            start = time.monotonic()
            with pytest.raises(BusyError) as caught:
                RunFolder.reopen(tmp_path / "run")
            seconds.append(time.monotonic() - start)
        assert min(seconds) < 0.5
        assert f"pid {os.getpid()} on host" in caught.value.problems[0].found
        assert {file.name: file.read_bytes() for file in folder.path.iterdir()} == before


@pytest.mark.process
def test_a_dead_owner_is_succeeded_with_a_warning(tmp_path, capsys):
    owner = start_owner(tmp_path / "run")
    assert owner.stdout.readline() == "ready\n"
    assert owner.stdout.readline() == "owner\n"
    with pytest.raises(BusyError):
        RunFolder.reopen(tmp_path / "run")
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    logs.attach_console()
    try:
        with RunFolder.reopen(tmp_path / "run"):
            pass
        assert f"owner (pid {owner.pid} on " in capsys.readouterr().err
        assert "WARNING taking over" in (tmp_path / "run" / "train.log").read_text()
        with RunFolder.reopen(tmp_path / "run"):  # released in order: no warning
            pass
        assert capsys.readouterr().err == ""
    finally:
        logs.detach_console()


def test_a_forked_child_does_not_hold_the_folder(tmp_path):
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:  # owns the folder, forks a child that lives on, and dies
        FolderLock(tmp_path)
        child = os.fork()
        if child == 0:
            os.write(write_end, str(os.getpid()).encode())
            time.sleep(60)
        os._exit(0)
    os.waitpid(parent, 0)
    child = int(os.read(read_end, 100))
    os.kill(child, 0)
    try:
        lock = FolderLock(tmp_path)
        assert lock.dead_owner["pid"] == str(parent)
        lock.release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("llama_exp.files.lock.fcntl.flock", unsupported)
    FolderLock(tmp_path).release()
    assert "no locks" in caplog.text
