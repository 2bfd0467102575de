"""`llama-exp evaluate`: figures of a run, of a model and of files, and what every wrong command gets."""

import json
from pathlib import Path

import pytest
from small_models import make
from whole_runs import HERE, rows, run_here

from llama_exp import cli
from llama_exp.commands import evaluate as command
from llama_exp.errors import BusyError
from llama_exp.files.evaluation_file import read_evaluations
from llama_exp.files.lock import FolderLock
from llama_exp.results import load_run


def evaluate(*arguments, code=0):
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", *map(str, arguments)])
    assert stop.value.code == code


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text, a quiz, and a finished run."""
    path = tmp_path_factory.mktemp("evaluate")
    (path / "text.txt").write_text("\n\n".join(f"paragraph {number} is about ä {number % 7}" for number in range(60)))
    items = [{"q": f"{number}?", "choices": ["ja", "nein"], "answer": number % 2} for number in range(4)]
    (path / "quiz.jsonl").write_text("\n".join(map(json.dumps, items)))
    (path / "own.yaml").write_text("tasks: {own: {_target_: my_task.Task}}")
    (path / "quiz.yaml").write_text('file: quiz.jsonl\nprompt: "{q}"\n')
    run_here(path, "logger=none", "trainer.max_steps=2", "trainer.validation_batches=null", "hydra.run.dir=run", HERE)
    return path


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("LLAMA_EXP_CACHE", str(place / "cache"))


def test_a_run_alone_is_evaluated_on_its_own_validation_split(place, capsys):
    evaluate("run")
    (row,) = read_evaluations(place / "run/evaluation.jsonl")
    last = [one for one in rows(place / "run") if one["split"] == "validation"][-1]
    assert row["step"] == last["step"] == 2
    assert row["loss"] == pytest.approx(last["loss"], rel=1e-6)
    summary = json.loads((place / "run/summary.json").read_text())
    assert summary["evaluation"]["validation"]["loss"] == row["loss"]
    assert (place / "run" / row["file"]).is_file()
    output = capsys.readouterr().out
    assert "bits per byte" in output and "run" in output


def test_sets_and_tasks_of_a_model(place, capsys):
    make(place / "model")
    evaluate("model", "--set", "docs=text.txt", "--task", "quiz.yaml", "--limit", 3, "--to", "out")
    docs, quiz = read_evaluations(place / "out/evaluation.jsonl")
    assert (docs["name"], quiz["name"], quiz["items"], docs["step"]) == ("docs", "quiz", 3, None)
    text = (place / "text.txt").read_text()
    items = [json.loads(line) for line in (place / "out" / docs["file"]).read_text().splitlines()]
    assert sum(item["bytes"] for item in items) == len(text.encode())
    assert "normalized accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("changed", [["--quantization", "int8"], ["--precision", "bfloat16"], ["--adapter", "x"]])
def test_a_changed_model_leaves_the_runs_record_alone(changed):
    run = load_run("run")
    folder, owner = command._target(command._parser().parse_args(["run", *changed]), run)
    assert folder.parent == Path("outputs/evaluations/run") and owner is None
    assert command._target(command._parser().parse_args(["run"]), run) == (run.folder, run)


def test_a_run_that_somebody_is_at_takes_no_rows():
    lock = FolderLock(Path("run"))
    try:
        with pytest.raises(BusyError, match="--to"):
            command._target(command._parser().parse_args(["run"]), load_run("run"))
    finally:
        lock.release()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["model"], 2, "nothing to evaluate"),
        (["run", "--set", "a=none.txt"], 3, "--set a"),
        (["run", "--set", "a="], 2, "names no file"),
        (["run", "--set", "a=text.txt", "--set", "a=text.txt"], 2, "is given twice"),
        (["run", "--task", "none.yaml"], 2, "no such file"),
        (["run", "--evaluation", "pythonqa"], 2, "python_qa"),
        (["run", "--limit", "0"], 2, "at least 1"),
        (["run", "--evaluation", "own.yaml"], 2, "--trusted-modules"),
        (["nowhere", "--set", "a=text.txt"], 3, "nowhere"),
    ],
    ids=str,
)
def test_wrong_commands(place, capsys, arguments, code, message):
    (place / "model").mkdir(exist_ok=True)
    evaluate(*arguments, code=code)
    errors = capsys.readouterr().err
    assert message in errors and "fix:" in errors and "Traceback" not in errors
