"""Lines of jobs' outputs that a person must see: found once, whatever wrote them."""

import pytest

from llama_exp.sweeps.output import Messages, find_log, output_path


def write(sweep, number, text, mode="ab"):
    path = output_path(sweep, number)
    path.parent.mkdir(exist_ok=True)
    with open(path, mode) as file:
        file.write(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: the disk is nearly full",
        "ERROR:root:broken",
        "2026-11-28 10:00:00+0000 WARNING slow",
        "[2026-11-28 10:00:00,123][__main__][ERROR] - no such file",
        "2026-11-28 10:00:00 - my.module - CRITICAL - gone",
        "/some/where.py:12: UserWarning: careful",
    ],
)
def test_lines_that_matter(tmp_path, line):
    messages = Messages(tmp_path)
    write(tmp_path, 3, f"step 1\n{line}\nstep 2\n")
    assert messages.read(3) == [line]
    assert messages.read(3) == []


@pytest.mark.parametrize(
    "line", ["step 1/3  loss 2.0", "sample at step 4: an ERROR is raised", "WARNINGS are errors", "no ERROR here", ""]
)
def test_lines_that_do_not(tmp_path, line):
    messages = Messages(tmp_path)
    write(tmp_path, 3, line + "\n")
    assert messages.read(3) == []


def test_indented_lines_belong_to_it(tmp_path):
    messages = Messages(tmp_path)
    write(tmp_path, 0, "WARNING: a\n  found: b\n  fix:   c\nother\n  found: d\n")
    assert messages.read(0) == ["WARNING: a\n  found: b\n  fix:   c"]


def test_half_a_line_waits_for_its_end(tmp_path):
    messages = Messages(tmp_path)
    write(tmp_path, 0, "10%\r20%\rWARN")
    assert messages.read(0) == []
    write(tmp_path, 0, "ING: late\n")
    assert messages.read(0) == ["WARNING: late"]


def test_the_same_of_several_jobs_is_given_once(tmp_path):
    messages = Messages(tmp_path)
    for number in range(4):
        write(tmp_path, number, "WARNING: offline\n")
    assert [messages.read(number) for number in range(4)] == [["WARNING: offline"], [], [], []]
    assert messages.repeated() == [("WARNING: offline", [1, 2, 3])]


def test_an_earlier_attempt_is_not_told_again(tmp_path):
    write(tmp_path, 0, "WARNING: of yesterday\n")
    messages = Messages(tmp_path)
    assert messages.read(0) == []
    write(tmp_path, 0, "WARNING: new\n")
    assert messages.read(0) == ["WARNING: new"]
    write(tmp_path, 0, "ERROR: x\n", "wb")
    assert messages.read(0) == ["ERROR: x"], "a file that was begun anew is read from its beginning"


def test_a_job_that_warns_at_every_step_does_not_fill_the_screen(tmp_path):
    messages = Messages(tmp_path)
    write(tmp_path, 0, "".join(f"WARNING: step {step}\n" for step in range(1000)))
    told = messages.read(0)
    assert len(told) == 21 and told[-1].startswith("WARNING: more of them in ")


def test_megabytes_without_an_end_of_line(tmp_path):
    messages = Messages(tmp_path)
    write(tmp_path, 0, b"\xff" * 2**21 + b"\nWARNING: found\n")
    assert messages.read(0) == ["WARNING: found"]


def test_nothing_there(tmp_path):
    assert Messages(tmp_path / "nowhere").read(0) == []


def test_the_jobs_own_log_is_better(tmp_path):
    assert find_log(tmp_path, 3, tmp_path / "x") == tmp_path / "output" / "3.log"
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "train.log").write_text("")
    assert find_log(tmp_path, 3, tmp_path / "x") == tmp_path / "x" / "train.log"
