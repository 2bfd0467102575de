"""The table of a running sweep: that it fits every terminal, and plain lines where there is none."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from llama_exp.console import live_area, logs
from llama_exp.sweeps.board import Board
from llama_exp.sweeps.jobs import Glimpse, Job, Outcome, State
from llama_exp.sweeps.output import output_path
from llama_exp.sweeps.table import Table
from llama_exp.sweeps.table_text import Style, cell_len, draw

WIDE = Style(120, 40, False)


def job(number, *overrides, folder=Path("s")):
    return Job(
        number,
        overrides or (f"lora.rank={2**number}", f"seed={number}"),
        (),
        folder / str(number),
        OmegaConf.create({}),
    )


def glimpse(step, **more):
    return Glimpse(step=step, steps=300, loss=3.0, tokens_per_second=12345.0, seconds_left=60.0, **more)


def made_board(finished=0, failed=0, running=0, waiting=0):
    now = [0.0]
    board = Board(finished + failed + running + waiting, [], now=lambda: now[0])
    board.rows.update(Board(0, [job(number) for number in range(board.total)]).rows)
    for number in range(finished + failed + running):
        board.start(job(number))
        board.tick([(job(number), glimpse(150), 30.0)])
        now[0] += 30
        if number < finished:
            board.end(job(number), Outcome(State.finished, value=3.0 - number / 100))
        elif number < finished + failed:
            board.end(job(number), Outcome(State.failed, "ValueError: a hole in the data"))
    return board


def lines(board, style=WIDE, direction="minimize"):
    return [text for text, _ in draw(board, "outputs/a/sweeps/now", direction, style)]


def test_wide_characters_take_two_columns():
    assert cell_len("a東京") == 5 and cell_len("é") == 1


def test_a_line_for_each_job():
    title, *rows = lines(made_board(finished=1, failed=1, running=1, waiting=1))
    assert title.startswith("sweep ━━━━━───────────────") and "ETA" in title and title.endswith("outputs/a/sweeps/now")
    assert "1 of 4 done · 1 failed · 1 running · 1 waiting" in title
    assert [" ".join(line.split()) for line in rows] == [
        "job overrides state step loss val tokens/s time ETA",
        "0 lora.rank=1 seed=0 finished 300/300 3.0000 3.0000 12.3k 0:30",
        "1 lora.rank=2 seed=1 failed ValueError: a hole in the data",
        "2 lora.rank=4 seed=2 ━━━━━━────── 150/300 3.0000 12.3k 0:30 1:00",
        "3 lora.rank=8 seed=3 waiting",
    ]


def test_what_nobody_knows_has_no_column():
    board = Board(1, now=lambda: 0.0)
    board.start(job(0))
    assert lines(board)[1].split() == ["job", "overrides", "state", "time"]
    assert lines(board)[2].split() == ["0", "lora.rank=1", "seed=0", "running", "0:00"]


def test_a_phase_is_shown_instead_of_the_bar():
    board = Board(1, now=lambda: 0.0)
    board.start(job(0))
    board.tick([(job(0), Glimpse(phase="compiling 0:07", steps=300), 9.0)])
    assert "compiling 0:07" in lines(board)[2]


@pytest.mark.parametrize("columns", [0, 1, 5, 20, 40, 79, 119, 200])
@pytest.mark.parametrize("height", [1, 2, 3, 5, 23, 60])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_forty_jobs_fit_every_terminal(columns, height, ascii_only):
    board = made_board(finished=15, failed=3, running=4, waiting=18)
    board.rows[2].text = "text='東京 é'"
    shown = lines(board, Style(columns, height, ascii_only))
    assert 1 <= len(shown) <= height
    assert all(cell_len(line) <= columns for line in shown)
    assert not ascii_only or "".join(shown).isascii()


@pytest.mark.parametrize(
    ("height", "short"),
    [
        (38, []),
        (31, ["8 waiting"]),
        (25, ["finished: 0-20; best: job 20, 2.8000, lora.rank=1048576 seed=20"]),
        (12, ["finished: 0-20; best", "8 waiting"]),
        (8, ["running: 24-27", "failed: 21-23", "finished: 0-20; best", "8 waiting"]),
    ],
)
def test_groups_shrink_to_a_line(height, short):
    shown = lines(made_board(finished=21, failed=3, running=4, waiting=8), Style(120, height, False))
    groups = [line for line in shown[2:] if not line[:5].strip().isdigit()]
    assert len(shown) <= height and len(groups) == len(short)
    assert all(line.startswith(text) for line, text in zip(groups, short, strict=True)), groups


def test_long_overrides_lose_the_words_that_need_not_be_there():
    board = Board(2, now=lambda: 0.0)
    for number in range(2):
        board.start(job(number, "optimizer.learning_rate=1e-4", "lora.rank=8", f"seed={number}", "a.x=1", "b.x=2"))
        board.tick([(job(number), glimpse(10), 1.0)])
    shown = lines(board, Style(80, 20, False))
    assert "learning_rate=1e-4 rank=8 seed=1 a.x=1 b.x=2" in shown[3]


def observe(table):
    table.on_start(job(3, "lora.rank=8"), 4711)
    table.on_tick([(job(3), glimpse(20), 1.0)])


def test_plain_lines(tmp_path, capsys):
    now, (three, four) = [0.0], (job(3, "lora.rank=8"), job(4, "lora.rank=16", folder=tmp_path))
    table = Table(tmp_path, 8, [three, four], objective="validation loss", now=lambda: now[0])
    table.on_start(three, 4711)
    for step in range(0, 40, 2):
        now[0] += 1.0
        table.on_tick([(three, glimpse(step, validation_loss=3.5), now[0])])
    table.on_end(three, Outcome(State.finished, value=2.89))
    table.on_start(four, 4712)
    table.on_end(four, Outcome(State.failed, "killed by SIGSEGV"))
    table.close()
    assert capsys.readouterr().err.splitlines() == [
        "job 3 started: lora.rank=8",
        "job 3: step 18/300  loss 3.0000  validation loss 3.5000  12.3k tokens/s  ETA 1:00",
        "job 3: step 38/300  loss 3.0000  validation loss 3.5000  12.3k tokens/s  ETA 1:00",
        "job 3 finished in 0:20: validation loss 2.8900",
        "job 4 started: lora.rank=16",
        "job 4 (lora.rank=16) failed after 0:00: killed by SIGSEGV",
        f"  see: less {tmp_path}/output/4.log",
    ]


def test_a_job_that_does_not_move_says_nothing(tmp_path, capsys):
    now = [0.0]
    table = Table(tmp_path, 1, now=lambda: now[0])
    table.on_start(job(0), 1)
    for _ in range(30):
        now[0] += 1.0
        table.on_tick([(job(0), Glimpse(phase="compiling"), now[0])])
    assert capsys.readouterr().err.splitlines() == ["job 0 started: lora.rank=1 seed=0"]


def test_warnings_of_jobs_are_told_when_they_happen(tmp_path, capsys):
    table = Table(tmp_path, 2)
    (tmp_path / "output").mkdir()
    for number in range(2):
        table.on_start(job(number), 1)
        output_path(tmp_path, number).write_text("step 1\nWARNING: offline\n  fix: later\n")
    table.on_tick([(job(0), Glimpse(), 1.0)])
    assert capsys.readouterr().err.splitlines()[-2:] == ["job 0 | WARNING: offline", "job 0 |   fix: later"]
    table.on_end(job(1), Outcome(State.finished))
    table.close()
    assert capsys.readouterr().err.splitlines()[-1] == "the same in job 1: WARNING: offline"


@pytest.mark.parametrize("path", [None, os.devnull, "/dev/full"], ids=["none", "closed", "full"])
def test_a_terminal_that_goes_away_stops_nothing(tmp_path, monkeypatch, path):
    stream = None if path is None else open(path, "w")  # noqa: SIM115
    if path == os.devnull:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    table = Table(tmp_path, 2)
    observe(table)
    table.on_end(job(3), Outcome(State.failed, "x"))
    table.close()
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.close()


@contextlib.contextmanager
def pseudo_terminal(monkeypatch, term="xterm-256color"):
    """Standard error is a pseudo-terminal of 24 x 100 inside of the block; yields the other side of it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with monkeypatch.context() as patch, os.fdopen(theirs, "w") as stream:
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", term)
        patch.setattr(sys, "stderr", stream)
        yield ours
    with contextlib.suppress(OSError):
        os.close(ours)


def read_until(other_side, expected):
    """What the terminal got until something stands there, at most ten seconds: the kernel hands it over in its time."""
    text, end = "", time.monotonic() + 10
    while expected not in text and time.monotonic() < end:
        if select.select([other_side], [], [], 0.1)[0]:
            text += os.read(other_side, 2**16).decode()
    return text


def test_on_a_terminal_events_stand_above_the_table(tmp_path, monkeypatch):
    table = Table(tmp_path, 2, [job(3), job(4)])
    with pseudo_terminal(monkeypatch) as other_side, contextlib.closing(table):
        observe(table)
        table.on_end(job(3), Outcome(State.failed, "killed by SIGSEGV"))
        text = read_until(other_side, "1 failed")
        assert "job 3 (lora.rank=8) failed after 0:00: killed by SIGSEGV" in text and "0 of 2 done" in text
        assert "started" not in text, "the table shows that"
        pid = os.fork()
        if pid == 0:  # a job: what it logs is its own, and it draws no table
            drawn_there = live_area._open_areas or table._area.is_open or logs.ConsoleHandler.print_above_bar
            os._exit(1 if drawn_there or hasattr(sys.stderr, "rich_proxied_file") else 0)
        assert os.waitpid(pid, 0)[1] == 0
        assert table._area.is_open
    assert not live_area._open_areas and logs.ConsoleHandler.print_above_bar is None


def test_a_terminal_that_hangs_up(tmp_path, monkeypatch):
    table = Table(tmp_path, 2, now=iter(range(100)).__next__)
    with pseudo_terminal(monkeypatch) as other_side:
        observe(table)
        os.close(other_side)
        observe(table)
        table.on_end(job(3), Outcome(State.failed, "x"))
        table.close()


def test_a_dumb_terminal_gets_lines(tmp_path, monkeypatch):
    table = Table(tmp_path, 2)
    with pseudo_terminal(monkeypatch, "dumb") as other_side:
        observe(table)
        assert read_until(other_side, "\n").strip() == "job 3 started: lora.rank=8"


@pytest.mark.process
def test_an_ascii_terminal_gets_ascii(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from test_sweep_table import *\n"
        "table = Table(Path('.'), 2); observe(table)\n"
        "table.on_end(job(3), Outcome(State.failed, '\\u6771\\u4eac')); table.close()"
    )
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "TERM": "xterm", "COLUMNS": "0"}
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    subprocess.run(command, stderr=theirs, env=kept | plain, check=True, cwd=tmp_path, timeout=60)
    text = read_until(ours, "1 failed")
    os.close(theirs)
    os.close(ours)
    assert text.isascii() and "0 of 2 done | 1 failed" in text and "\\u6771\\u4eac" in text
