"""Signals: what is raised, what is noted, and what a second one does."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llama_exp import signals
from llama_exp.console.failures import tell_failure
from llama_exp.errors import InputError, Interrupted, Preempted, Pruned

ROOT = Path(__file__).resolve().parents[1]
CODES = {"SIGTERM": 75, "SIGUSR1": 75, "SIGHUP": 75, "SIGINT": 130, "SIGUSR2": 75}


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """The tests may run under nohup, which switches SIGHUP off."""
    outside = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    before = [signal.getsignal(number) for number in signals.STOPPING]
    yield
    assert [signal.getsignal(number) for number in signals.STOPPING] == before
    signal.signal(signal.SIGHUP, outside)


def send(name):
    os.kill(os.getpid(), getattr(signal, name))


@pytest.mark.parametrize("name", CODES)
def test_it_is_raised_wherever_the_run_is(name):
    with pytest.raises((Preempted, Interrupted, Pruned), match=f"somewhere.*\\n.*{name}") as raised:
        with signals.raised_at_once(), signals.told("somewhere"):
            send(name)
    assert raised.value.exit_code == CODES[name]
    assert isinstance(raised.value, Pruned) == (name == "SIGUSR2")


def test_libraries_that_swallow_everything_do_not_swallow_it():
    with pytest.raises(signals.Stopped):
        with signals.raised_at_once():
            try:
                send("SIGTERM")
            except Exception:
                pytest.fail("it is no Exception")


def test_what_a_library_makes_of_it_is_told_as_what_it_is():
    with pytest.raises(Preempted, match="SIGHUP"):
        with signals.raised_at_once(), signals.told("somewhere"):
            try:
                send("SIGHUP")
            except KeyboardInterrupt as error:
                raise RuntimeError("a callback failed") from error


def test_an_error_without_a_signal_stays_itself():
    with pytest.raises(ZeroDivisionError), signals.raised_at_once(), signals.told("somewhere"):
        raise ZeroDivisionError
    with pytest.raises(InputError), signals.raised_at_once(), signals.told("somewhere"), signals.noted(None):
        send("SIGTERM")
        raise InputError.about("file", "is bad", "that")


def test_one_that_was_swallowed_is_raised_at_the_next_check():
    with pytest.raises(signals.Stopped):
        with signals.raised_at_once():
            with contextlib.suppress(BaseException):
                send("SIGTERM")
            signals.check()


def test_what_was_noted_counts_until_the_outcome_is_decided():
    with pytest.raises(signals.Stopped):
        with signals.raised_at_once():
            with signals.noted("%s: later"):
                send("SIGUSR1")
                assert signals.received() == signal.SIGUSR1
            signals.decide()
    with signals.raised_at_once():
        signals.decide()
        send("SIGUSR1")
    assert signals.received() == signal.SIGUSR1


def test_one_between_two_jobs_of_a_sweep_stops_the_second():
    with signals.raised_at_once():
        with signals.raised_at_once():
            signals.decide()
        send("SIGTERM")
        with pytest.raises(signals.Stopped), signals.raised_at_once():
            pytest.fail("the second job has begun")


def test_the_next_process_wide_block_begins_afresh():
    with signals.noted(None):
        send("SIGTERM")
    with signals.noted(None):
        assert signals.received() is None


def test_nohup_keeps_sighup_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.raised_at_once():
            send("SIGHUP")
            assert signals.received() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_leave_the_handlers_alone():
    before, found = signal.getsignal(signal.SIGTERM), []

    def look():
        with signals.raised_at_once(), signals.noted(None):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


def test_a_forked_worker_is_killed_as_usual():
    with signals.noted(None):
        child = os.fork()
        if child == 0:
            send("SIGTERM")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_before_a_run_it_is_a_message_and_a_code(capsys):
    assert tell_failure(signals.Stopped(signal.SIGTERM), debug=False) == 75
    assert "SIGTERM" in capsys.readouterr().err and tell_failure(signals.Stopped(signal.SIGINT), debug=False) == 130


def program(body):
    command = [sys.executable, "-c", f"import os, signal, sys\nfrom llama_exp import signals\n{body}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.process
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_second_signal_ends_the_process(name):
    kill = f"os.kill(os.getpid(), signal.{name})"
    done = program(f"with signals.noted(None):\n {kill}\n assert signals.received()\n {kill}\n print('still here')")
    assert done.returncode == -getattr(signal, name) and "still here" not in done.stdout, done.stderr


@pytest.mark.process
@pytest.mark.parametrize("name", CODES)
def test_from_the_first_line_to_the_last(name):
    kill = f"os.kill(os.getpid(), signal.{name})"
    first = program(f"with signals.orderly():\n {kill}\n import tensorflow")
    assert first.returncode == CODES[name] and name in first.stderr and "Traceback" not in first.stderr
    # A module's global dies when Python has given all handlers back.
    last = f"class Late:\n def __del__(self, kill=os.kill, pid=os.getpid()): kill(pid, {int(getattr(signal, name))})"
    done = program(f"{last}\nwith signals.orderly():\n pass\nlate = Late()\nlate.itself = late\nsys.exit(5)")
    assert done.returncode == 5, done.stderr


@pytest.mark.process
@pytest.mark.parametrize("command", [["train.py"], ["-m", "llama_exp", "train"]])
def test_the_commands_listen_before_they_import(command, tmp_path):
    """Hydra stands in for what takes long: its import sends the signal."""
    (tmp_path / "hydra.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 75 and "before the run began" in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGTERM"])
def test_a_host_s_handler_gets_the_signal_once_the_run_has_stopped(name):
    """As submitit's, which queues the job again."""
    number, told = getattr(signal, name), []
    outside = signal.signal(number, lambda number, frame: told.append(signal.Signals(number).name))
    try:
        with pytest.raises(Preempted):
            with signals.raised_at_once(), signals.told("somewhere"):
                send(name)
        assert told == []
        signals.hand_on()
        assert told == [name]
        with signals.raised_at_once():
            pass
        signals.hand_on()  # nothing came
        assert told == [name]
    finally:
        signal.signal(number, outside)


def test_without_a_host_nothing_is_handed_on():
    for name in ("SIGUSR1", "SIGINT"):  # of SIGINT Python itself has a handler
        with contextlib.suppress(Preempted, Interrupted), signals.raised_at_once(), signals.told("somewhere"):
            send(name)
        signals.hand_on()
