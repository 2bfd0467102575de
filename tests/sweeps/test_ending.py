"""What a person is told at the end of a sweep: results, failures with what shows and repeats them, what is left."""

import shlex
from pathlib import Path

import pytest

from llama_exp.errors import ExitCode
from llama_exp.sweeps.ending import Report, Words, end_lines, tell_end
from llama_exp.sweeps.jobs import State

WORDS = Words(("python", "train.py"), "python train.py resume=s", "validation loss", "minimize")
SWEEP = Path("outputs/a/sweeps/now")


def report(number, state=State.finished, sweep=SWEEP, **facts):
    overrides = (f"seed={number}",)
    return Report(number, overrides, (*overrides, "trainer.max_steps=20"), sweep / str(number), state, **facts)


def failed(number, cause, exit_code=1, **facts):
    return report(number, State.failed, cause=cause, exit_code=exit_code, **facts)


def told(*reports, words=WORDS):
    return list(end_lines(reports, SWEEP, words))


def test_one_of_eight_raises(capsys):
    reports = [report(number, value=3.0 - number / 10, seconds=60 + number) for number in range(8)]
    reports[3] = failed(3, "ValueError: a hole in the data")
    assert tell_end(reports, SWEEP, WORDS) is ExitCode.SWEEP
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "sweep outputs/a/sweeps/now: 7 finished, 1 failed"
    assert lines[1].split() == ["job", "overrides", "validation", "loss", "time"]
    assert [line.split()[0] for line in lines[2:9]] == ["0", "1", "2", "4", "5", "6", "7"]
    assert [line for line in lines if line.endswith("best")] == ["    7  seed=7              2.3000  1:07 best"]
    assert "job 3 failed: seed=3: ValueError: a hole in the data (exit code 1)" in lines
    assert "  see: less outputs/a/sweeps/now/output/3.log" in lines
    assert "  repeat: python train.py seed=3 trainer.max_steps=20" in lines
    assert lines[-2:] == ["try the failed ones again:", "  python train.py resume=s"]


def test_all_well():
    lines = told(report(0, value=1.0), report(1, value=2.0))
    assert lines[0].endswith("2 finished") and len(lines) == 4 and "failed" not in "".join(lines)


def test_all_well_is_exit_code_0(capsys):
    assert tell_end([report(0, value=1.0)], SWEEP, WORDS) is ExitCode.OK


def test_the_same_error_is_told_once():
    own = [failed(number, f"StorageError: {SWEEP / str(number)}/train.log cannot be written", 4) for number in range(3)]
    lines = told(*own, failed(5, "killed by SIGKILL", None, attempts=2))
    assert sum("cannot be written" in line for line in lines) == 1
    assert any(line.startswith("the same error in 3 jobs: StorageError: ") for line in lines)
    assert [line for line in lines if line.startswith("  job ")] == [
        f"  job {number}: seed={number}" for number in "012"
    ]
    assert "  repeat job 0: python train.py seed=0 trainer.max_steps=20" in lines
    assert "job 5 failed 2 times: seed=5: killed by SIGKILL" in lines, "no exit code where a signal ended it"


def test_another_exit_code_is_another_error():
    assert not any("same error" in line for line in told(failed(0, "ended", 1), failed(1, "ended", 9)))


def test_what_is_left():
    states = [State.finished, State.interrupted, State.preempted, State.pending, State.pending, State.running]
    lines = told(*(report(number, state) for number, state in enumerate(states)))
    assert lines[-2:] == ["left: job 1-5; go on with", "  python train.py resume=s"]
    assert lines[0].endswith("1 finished, 1 interrupted, 1 preempted, 1 running, 2 waiting")


def test_commands_by_what_the_folder_holds(tmp_path):
    folder = tmp_path / "3"
    folder.mkdir()
    for name in ("train.log", "config.yaml"):
        (folder / name).write_text("")
    lines = list(end_lines([failed(3, "x", sweep=tmp_path)], tmp_path, WORDS))
    assert f"  see: less {folder}/train.log" in lines
    assert f"  repeat: python train.py --from {folder}" in lines


def test_commands_are_words_of_a_shell():
    odd = Report(0, ("a='x y'",), ("a='x y'", "b=[1,2]"), SWEEP / "0", State.failed, cause="c")
    (line,) = (line for line in told(odd) if "repeat" in line)
    assert shlex.split(line.partition(": ")[2]) == ["python", "train.py", "a='x y'", "b=[1,2]"]


def test_no_secret_and_no_control_character(capsys):
    odd = Report(0, ("api_key=abc",), ("api_key=abc",), SWEEP / "0", State.failed, cause="\x1b[2J hf_" + "a" * 30)
    tell_end([odd], SWEEP, WORDS)
    text = capsys.readouterr().err
    assert "api_key=***" in text and "abc" not in text and "\x1b" not in text and "hf_a" not in text


@pytest.mark.parametrize(
    ("direction", "values", "best"),
    [
        ("minimize", [2.0, 1.0, float("nan")], 1),
        ("maximize", [2.0, 1.0, float("inf")], 0),
        (None, [2.0, 1.0], None),
        ("minimize", [(1.0, 2.0), (0.5, 3.0)], None),
        ("minimize", [None, "text"], None),
    ],
)
def test_the_best(direction, values, best):
    words = Words(WORDS.program, WORDS.go_on, direction=direction)
    lines = told(*(report(number, value=value) for number, value in enumerate(values)), words=words)
    marked = [int(line.split()[0]) for line in lines if line.endswith("best")]
    assert marked == ([] if best is None else [best])


def test_a_pruned_job_is_never_the_best():
    lines = told(report(0, value=3.0), report(1, State.pruned, value=1.0))
    assert [line.split()[0] for line in lines if line.endswith("best")] == ["0"]
    assert any(line.endswith("pruned") for line in lines[1:])


def test_many_results_are_for_a_program():
    lines = told(*(report(number, value=float(number)) for number in range(100)))
    assert len(lines) == 4 and lines[-1] == "  and 99 more, in sweep.jsonl" and lines[2].endswith("best")


def test_a_closed_terminal_changes_no_exit_code(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    assert tell_end([failed(0, "x")], SWEEP, WORDS) is ExitCode.SWEEP
