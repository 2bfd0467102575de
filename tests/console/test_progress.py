"""What a person sees: a live line on a terminal, plain lines elsewhere, in spite of odd terminals."""

import fcntl
import logging
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import pytest

from llama_exp.console import live, live_area, logs, progress
from llama_exp.console.failures import tell_failure
from llama_exp.console.progress import (
    Progress,
    bar_text,
    end_table,
    format_bytes,
    format_number,
    shorten,
)
from llama_exp.errors import InputError
from llama_exp.files.process import Process

RUN = """
import logging, sys, time
from llama_exp.console import logs
from llama_exp.console.live import steps_bar
from llama_exp.console.progress import Progress
logs.attach_console()
bar = Progress(max_steps=8)
bar.on_phase("preparing data")
with steps_bar("training the tokenizer", 3) as advance:
    advance()
    time.sleep(2 * float(sys.argv[1]))
bar.on_start({})
bar.on_metrics({"step": 0, "split": "validation", "loss": 6.0})
for step in range(1, 9):
    time.sleep(float(sys.argv[1]))
    bar.on_metrics({"step": step, "split": "train", "loss": 5.0 / step, "learning_rate": 1e-3, "grad_norm": 0.5,
                    "tokens_per_second": 12345.6, "peak_memory_bytes": 512 * 2**20})
    if step == 4:
        logging.getLogger("llama_exp.x").warning("between the steps: \\u6771\\u4eac \\x1b[2J")
        bar.on_sample(4, "The zip", "The zip\\nfunction\\x1b[2J")
bar.on_finish("finished")
bar.on_phase("writing the model")
time.sleep(2 * float(sys.argv[1]))
bar.close()
logs.log_table("run summary", [("a", "1"), ("longer", "2")])
print("done")
"""


def run_plain(environment=None, **more):
    environment = {**os.environ, "TERM": "xterm", **(environment or {})}
    command = [sys.executable, "-c", RUN, "0"]
    return subprocess.run(command, env=environment, capture_output=True, timeout=30, **more)


def run_in_terminal(environment=None, size=(24, 100), delay="0.15"):
    """Everything that the program wrote to its terminal, and its exit status."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    environment = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
    } | {
        "TERM": "xterm-256color",
        **(environment or {}),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, delay], stdin=slave, stdout=subprocess.DEVNULL, stderr=slave, env=environment
    )
    os.close(slave)
    output = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.2)[0]:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # the other side is closed
                break
            if not chunk:
                break
            output += chunk
    os.close(master)
    return output.decode("utf-8", "replace"), process.wait(timeout=10)


def screen(output):
    """The lines that stand on the terminal in the end, for the few control sequences that a live line uses."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", output):
        if token == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif token == "\r":
            column = 0
        elif token == "\x1b[2K":
            lines[row] = ""
        elif re.fullmatch(r"\x1b\[\d*A", token):
            row -= int(token[2:-1] or 1)
        elif token.startswith("\x1b["):
            assert token[-1] in "mlh", token  # colours, and modes such as the hidden cursor
        else:
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in lines]


@pytest.mark.process
def test_plain_lines_without_a_terminal():
    finished = run_plain()
    assert finished.returncode == 0 and finished.stdout == b"done\n"
    lines = finished.stderr.decode().splitlines()
    assert lines[0] == "step 0/8  validation loss 6.0000  perplexity 403.43"
    assert lines[1] == "step 1/8  loss 5.0000  lr 1.00e-03  grad 0.500  12.3k tokens/s  512 MiB"
    assert lines[2].startswith("step 2/8  loss 2.5000") and "ETA 0:00" in lines[2]
    assert "WARNING: between the steps: 東京 \\x1b[2J" in lines
    assert "sample at step 4: The zip function\\x1b[2J" in lines
    assert lines[-3:] == ["run summary", "  a       1", "  longer  2"]
    assert sum(line.startswith("step ") for line in lines) == 9
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", finished.stderr)


@pytest.mark.process
@pytest.mark.parametrize(
    "environment",
    [
        {"COLUMNS": "0"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"TERM": ""},
    ],
    ids=["COLUMNS=0", "LANG=C", "strict ASCII", "no TERM"],
)
def test_plain_lines_in_odd_surroundings(environment):
    finished = run_plain(environment)
    assert finished.returncode == 0
    text = finished.stderr.decode()
    assert "Traceback" not in text and text.count("step ") >= 9
    assert "東京" in text or "\\u6771\\u4eac" in text


@pytest.mark.process
@pytest.mark.parametrize("redirection", ["2>&1 | head -n 1", "2>&-", "2>/dev/full", ">&- 2>&-"])
def test_a_reader_that_goes_away_stops_nothing(tmp_path, redirection):
    (tmp_path / "run.py").write_text(RUN.replace('print("done")', f"open({str(tmp_path / 'done')!r}, 'w').close()"))
    script = f"{sys.executable} {tmp_path / 'run.py'} 0.01 {redirection}; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30, env=environment)
    assert finished.returncode == 0 and (tmp_path / "done").exists()
    assert "Traceback" not in finished.stderr + finished.stdout


@pytest.mark.process
def test_live_line_on_a_terminal():
    output, status = run_in_terminal()
    assert status == 0
    assert "\x1b[" in output and "━" in output and "loss" in output
    assert "training the tokenizer 1/3" in output  # in the one line that there is
    assert "writing the model" in output  # in a line that went again
    lines = [line for line in screen(output) if line]
    live = [line for line in lines if line.startswith(("0/8", "1/8", "8/8")) or "━" in line or "─" in line]
    assert len(live) == 1, lines  # log lines did not leave copies of it behind
    assert live[0].startswith("8/8 ━") and "loss 0.6250 · val 6.0000 · 12.3k tokens/s · ETA 0:00" in live[0]
    assert lines.count("WARNING: between the steps: 東京 \\x1b[2J") == 1
    assert "sample at step 4: The zip function\\x1b[2J" in lines
    assert not any(line.startswith("step ") for line in lines)
    assert lines[-3:] == ["run summary", "  a       1", "  longer  2"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("environment", "size"),
    [({"COLUMNS": "0"}, (24, 80)), ({}, (0, 0)), ({}, (5, 20)), ({"TERM": "dumb"}, (24, 80))],
    ids=["COLUMNS=0", "0 x 0", "20 columns", "dumb"],
)
def test_odd_terminals(environment, size):
    output, status = run_in_terminal(environment, size, delay="0.02")
    assert status == 0 and "Traceback" not in output and "8/8" in output


@pytest.mark.process
def test_ascii_terminal():
    surroundings = {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    output, status = run_in_terminal(surroundings, delay="0.02")
    assert status == 0 and "8/8 ###" in output and output.isascii()


def progress_at(step, **row):
    bar = Progress(max_steps=300)
    bar.on_metrics({"step": 0, "split": "validation", "loss": 4.5})
    bar.on_metrics({"step": step, "split": "train", "loss": 4.1234, **row})
    return bar


def test_line_fits_and_keeps_what_matters():
    bar = progress_at(120, tokens_per_second=12345.0, peak_memory_bytes=2**29)
    assert bar.line(120) == f"120/300 {'━' * 12}{'─' * 18} loss 4.1234 · val 4.5000 · 12.3k tokens/s · 512 MiB"
    for width in range(0, 130):
        line = bar.line(width)
        assert len(line) <= width
        assert width < 28 or "loss 4.1234" in line
    assert "512 MiB" not in bar.line(50)


def test_before_the_first_step_the_line_says_what_happens(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    bar = Progress(max_steps=10)
    for phase in ("preparing data", "building the model", "compiling the step"):
        bar.on_phase(phase)
        assert f" {phase}" in bar.line(80) and ":" not in bar.line(80)
        now[0] += 65.0
        assert f" {phase} 1:05" in bar.line(80)
    bar.on_step(1, 5.25, 1024)
    assert bar.line(80).startswith("1/10 ━") and "loss 5.2500" in bar.line(80) and "compiling" not in bar.line(80)


def test_every_step_moves_the_bar_and_what_happens_beside_it_is_shown():
    bar = progress_at(20, tokens_per_second=12345.0)
    for step in (21, 22, 23):
        bar.on_step(step, 4.0 - step / 100, 1024 * step)
        assert bar.line(100).startswith(f"{step}/300 ") and f"loss {4.0 - step / 100:.4f}" in bar.line(100)
    bar.on_phase("sampling")
    assert "sampling · loss 3.7700" in bar.line(100)
    bar.on_phase(None)
    assert "sampling" not in bar.line(100)


def test_another_than_the_writer_shows_no_line(monkeypatch):
    opened = []
    monkeypatch.setattr(live.LiveLine, "open", lambda line: opened.append(line))
    Progress(max_steps=10, shown=False).on_phase("preparing data")
    assert opened == []
    Progress(max_steps=10).on_phase("preparing data")
    assert len(opened) == 1


def test_eta_counts_neither_compilation_nor_what_a_resume_skipped(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = Progress(max_steps=100)
    bar.restore({"step": 40, "validation_loss": "nan"})
    now[0] += 500.0  # compilation
    for step in (50, 60):
        bar.on_metrics({"step": step, "split": "train", "loss": 1.0})
        now[0] += 20.0
    assert "ETA 1:20" in bar.line(100)


def test_state_continues_the_line():
    bar = progress_at(7)
    other = Progress(max_steps=300)
    other.restore(bar.state())
    assert other.line(100).startswith("7/300") and "val 4.5000" in other.line(100)


def test_end_table(tmp_path, caplog):
    caplog.set_level(logging.INFO, "llama_exp")
    summary = {
        "status": "finished",
        "exit_code": 0,
        "seconds": 125.4,
        "steps": 300,
        "tokens": 1_228_800,
        "tokens_per_second": 12345.6,
        "validation": {"first": 6.0, "best": 2.0, "best_step": 250, "last": 2.1, "perplexity": 8.166},
    }
    end_table(summary, tmp_path, {"resume": "python train.py resume=auto"})
    text = caplog.messages[0]
    assert "finished (exit code 0)" in text and "300, 1.2M tokens\n" in text
    assert "2:05 in all; the steps alone: 12.3k tokens/s" in text
    assert "6.0000 -> 2.1000 (-65 %)" in text and "2.0000 at step 250" in text and "8.17" in text
    assert str(tmp_path) in text and "python train.py resume=auto" in text


def test_end_table_of_a_run_that_never_started(tmp_path, caplog):
    caplog.set_level(logging.INFO, "llama_exp")
    end_table({"status": "failed", "exit_code": 5, "seconds": 0.1}, tmp_path, {})
    assert "failed (exit code 5)" in caplog.messages[0]


def test_a_console_is_attached_once(capsys):
    logs.attach_console()
    logs.attach_console()
    try:
        logging.getLogger("llama_exp.a").info("once")
        logging.getLogger("llama_exp.a").debug("never")
    finally:
        logs.detach_console()
    assert capsys.readouterr().err == "once\n"


def test_a_line_for_the_record_is_not_shown(capsys, tmp_path):
    logs.attach_console()
    record = logs.LogFile(tmp_path / "train.log")
    logs.attach(record)
    try:
        logging.getLogger("llama_exp.a").info("with XLA: a reason", extra=logs.FOR_THE_RECORD)
        logging.getLogger("llama_exp.a").info("shown")
    finally:
        logs.detach(record)
        logs.detach_console()
    assert capsys.readouterr().err == "shown\n"
    assert "with XLA: a reason" in (tmp_path / "train.log").read_text()


def test_the_console_of_another_than_the_writer_is_silent(capfd):
    before = list(logs.LOGGER.handlers)
    for _ in range(2):
        logs.attach_console(Process(rank=1, size=2))
    assert len(logs.LOGGER.handlers) == len(before) + 1
    logging.getLogger("llama_exp.a").warning("never")
    logs.detach_console()
    assert logs.LOGGER.handlers == before and capfd.readouterr() == ("", "")


@pytest.fixture
def named_lines():
    logs.attach_console()
    logs.name_lines("job 3")
    yield
    logs.name_lines(None)
    logs.detach_console()


def test_lines_of_several_jobs_on_one_terminal_carry_the_jobs_name(named_lines, capsys):
    logs.log_table("run summary", [("a", "1")])
    tell_failure(InputError.about("a.jsonl", "is gone", "nothing"), debug=False)
    logs.name_lines(None)
    logging.getLogger("llama_exp.a").info("alone again")
    assert capsys.readouterr().err.splitlines() == [
        "job 3 | run summary",
        "job 3 |   a  1",
        "job 3 | a.jsonl: is gone",
        "job 3 |   found: nothing",
        "job 3 |   fix:   download or export it again",
        "alone again",
    ]


def test_they_have_no_live_line_which_the_others_would_tear(named_lines, monkeypatch):
    monkeypatch.setattr(live_area, "is_terminal", lambda: True)
    bar = Progress(max_steps=10)
    bar.on_phase("preparing data")
    assert not live_area._open_areas


def test_no_secret_on_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "canary-4711")
    logs.attach_console()
    try:
        logging.getLogger("llama_exp.a").error("header %s", {"token": "canary-4711"})
    finally:
        logs.detach_console()
    assert capsys.readouterr().err == "ERROR: header {'token': '***'}\n"


def test_short_forms():
    assert [format_number(value) for value in (850, 12345, 4.5e6, 1.2e9)] == ["850", "12.3k", "4.5M", "1.2G"]
    assert [format_bytes(value) for value in (850, 2**29, 1.25 * 2**30)] == ["850 B", "512 MiB", "1.2 GiB"]
    assert shorten("abcdefgh", 6) == "abc..." and shorten("abc", 6) == "abc"
    assert bar_text(0.5, 4) == "━━──" and bar_text(2.0, 3, ascii_only=True) == "###" and bar_text(-1, 2) == "──"
