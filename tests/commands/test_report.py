"""`llama-exp report`: what it prints and writes, and what bad input gets."""

import json

import pytest
from made_runs import make_config, make_grid, make_run

from llama_exp.cli import main


def run(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(["report", *map(str, arguments)])
    return caught.value.code


@pytest.fixture
def sweep(tmp_path):
    losses = {(rank, 1e-3, seed): 2.5 - rank / 100 + seed / 1000 for rank in (4, 8) for seed in range(3)}
    return make_grid(tmp_path / "sweep", losses)


def test_a_sweep_is_ranked_on_the_terminal(sweep, capsys):
    assert run(sweep) == 0
    text = capsys.readouterr().out
    assert "2.4210 ± 0.0025" in text
    assert "3 pairs cannot give a p below 0.25" in text
    assert "--to FOLDER writes" in text


def test_everything_is_written(sweep, tmp_path, capsys):
    assert run(sweep, "--to", tmp_path / "out", "--baseline", "rank=4") == 0
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"report.md", "report.html", "statement.md", "curves.png", "latex/report.tex", "csv/runs.csv"} <= written
    told = capsys.readouterr().out
    assert all(name in told for name in written)


def test_only_what_is_asked_for_is_written(sweep, tmp_path):
    assert run(sweep, "--to", tmp_path / "out", "--formats", "md, csv") == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert not list((tmp_path / "out").glob("*.png"))
    assert "![" not in text  # no picture that is not there


def test_files_of_others_stay(sweep, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for _ in range(2):
        assert run(sweep, "--to", out, "--formats", "md") == 0
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "where", "fix"),
    [
        (["{nothing}"], 3, "nothing: holds no run and no sweep", "give the folder of a run or of a sweep"),
        ([], 2, "llama-exp report: the command line cannot be understood", "see llama-exp report --help"),
        (["{sweep}", "--figure", "validation.los"], 2, "--figure: no run has this figure", "mean validation.loss?"),
        (["{sweep}", "--figure", "steps"], 2, "--figure: it is not known whether", "--figure steps:min or steps:max"),
        (["{sweep}", "--baseline", "rank=3"], 2, "--baseline: no run has these values", "choose among lora.rank=4|8"),
        (["{sweep}", "--baseline", "rnk=3"], 2, "--baseline: the runs have no such key", "keys: lora.rank"),
        (["{sweep}", "--baseline", "elsewhere"], 2, "--baseline: is none of the report's runs", "the folder of one of"),
        (["{sweep}", "--confidence", "95"], 2, "llama-exp report: the command line", "see llama-exp report --help"),
        (["{sweep}", "--formats", "md"], 2, "--formats: says no folder", "add --to FOLDER"),
        (["{sweep}", "--to", "{out}", "--formats", "pdf"], 2, "--formats: no such format", "choose among png, md"),
        (["{sweep}", "--to", "{file}"], 4, "cannot be written", "--to <folder>"),
        (["{sweep}", "--to", "{file}/below"], 4, "cannot be written", "--to <folder>"),
    ],
)  # fmt: skip
def test_bad_input_is_told(sweep, tmp_path, capsys, arguments, code, where, fix):
    (tmp_path / "file").write_text("")
    names = {"sweep": sweep, "nothing": tmp_path / "nothing", "out": tmp_path / "out", "file": tmp_path / "file"}
    assert run(*(argument.format(**names) for argument in arguments)) == code
    error = capsys.readouterr().err
    assert where in error
    assert fix in error
    assert "found: " in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "{"),
        ("run.json", "[]"),
        ("config.yaml", "- a\n"),
        ("config.yaml", "!!python/object:os.system {}\n"),
        ("metrics.jsonl", '{"step": "one", "split": "train", "loss": 1}\n'),
        ("metrics.jsonl", "nonsense\n"),
        ("evaluation.jsonl", '{"step": 1.5, "name": "docs"}\n'),
        ("evaluation.jsonl", '{"step": 1}\n'),
    ],
)
def test_a_damaged_file_is_named(tmp_path, capsys, name, content):
    folder = make_run(tmp_path / "run")
    (folder / name).write_text(content)
    assert run(folder) == 3
    error = capsys.readouterr().err
    assert str(folder / name) in error
    assert "fix:" in error


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", "{"),
        ("summary.json", json.dumps({"status": 3, "validation": [], "seconds": "long", "tokens": None})),
        ("metrics.jsonl", ""),
        ("run.json", json.dumps({"starts": 3, "command": None, "dataset": [], "packages": 1, "git": "x"})),
        ("config.yaml", "name: 3\nseed: [1]\nmodel: null\nlora: 5\n"),
        ("config.yaml", "{}\n"),
    ],
)
def test_a_record_that_says_little_is_reported_all_the_same(tmp_path, name, content):
    folder = make_run(tmp_path / "run")
    make_run(tmp_path / "other", make_config(1))
    (folder / name).write_text(content)
    assert run(tmp_path, "--to", tmp_path / "out", "--formats", "md,latex,csv,html") == 0


def test_metrics_that_a_kill_cut_short_are_read(tmp_path):
    folder = make_run(tmp_path / "run", status="killed")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "spl')
    assert run(folder, "--to", tmp_path / "out") == 0
