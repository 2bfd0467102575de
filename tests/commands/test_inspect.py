"""`llama-exp inspect`: tables, files and errors of made-up runs."""

import csv
import json

import numpy as np
import pytest
from weighted_runs import QUERY, low_rank, make_run, random_matrices, start_arrays

from llama_exp import cli


def run(*arguments, code=0):
    with pytest.raises(SystemExit) as stop:
        cli.main([*map(str, arguments)])
    assert stop.value.code == code


@pytest.fixture
def full(tmp_path):
    generator, start = np.random.default_rng(0), start_arrays()
    changes = {path: low_rank(generator, array.shape, 4) for path, array in start.items() if array.ndim == 2}
    return make_run(tmp_path / "run", {path: array + changes.get(path, 0) for path, array in start.items()})


def test_it_prints_tables_and_writes_three_files(full, capsys):
    run("inspect", full, "--update-rank")
    output = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in output.splitlines() if line.strip()}
    assert lines["query"][1:5] == ["2", "12x12", "4.0", "12"]
    assert lines["all"][1:4] == ["layers", "14", "4.0"]
    assert lines["1"] == ["1", *["4"] * 7, lines["1"][-1]]
    assert "Biderman" in output and "update_rank.json, update_rank.csv, update_rank.png" in output
    table = output.partition("kind")[2].partition("\nrank:")[0]
    assert max(map(len, table.splitlines())) <= 80  # what narrow terminals have
    record = json.loads((full / "update_rank.json").read_text())
    assert record["mean_rank_90"] == 4 and record["kinds"]["embeddings"]["mean_rank_90"] == 4
    rows = list(csv.DictReader((full / "update_rank.csv").read_text().splitlines()))
    assert len(rows) == 15 and {row["rank_90"] for row in rows} == {"4"}


def test_json_and_another_folder(full, tmp_path, capsys):
    run("inspect", full, "--update-rank", "--json", "--to", tmp_path / "new/figures")
    assert json.loads(capsys.readouterr().out)["matrices"][QUERY]["rank_90"] == 4
    assert len(list((tmp_path / "new/figures").iterdir())) == 3
    assert not list(full.glob("update_rank*"))


def test_a_folder_that_cannot_be_written(full, tmp_path, capsys):
    """What was measured is printed all the same; the fix works."""
    (tmp_path / "file").write_text("")
    run("inspect", full, "--update-rank", "--to", tmp_path / "file/below", code=4)
    captured = capsys.readouterr()
    assert "all layers" in captured.out
    assert "cannot be written" in captured.err and "--to FOLDER" in captured.err and "Traceback" not in captured.err
    run("inspect", full, "--update-rank", "--to", tmp_path / "elsewhere")


def test_bad_command_lines(full, tmp_path, capsys):
    for arguments, code, found in (
        ([full], 2, "say what to inspect: --update-rank"),
        ([full, "--update-rank", "--step", "x"], 2, "invalid int"),
        ([full, "--update-rank", "--step", "7"], 3, "no valid checkpoint"),
        ([tmp_path / "nothing", "--update-rank"], 3, "no such folder"),
        ([tmp_path, "--update-rank"], 3, "one run is inspected at a time"),
    ):
        run("inspect", *arguments, code=code)
        errors = capsys.readouterr().err
        assert found in errors and "found:" in errors and "fix:" in errors and "Traceback" not in errors


def test_a_run_without_what_it_takes(full, tmp_path, capsys):
    """A config of another kind, and a model of the user's own."""
    config = (full / "config.yaml").read_text()
    (full / "config.yaml").write_text(config.replace("LlamaBackbone", "Other"))
    run("inspect", full, "--update-rank", code=3)
    assert "a class of its own" in capsys.readouterr().err
    (full / "config.yaml").write_text("seed: 1\n")
    run("inspect", full, "--update-rank", code=3)
    assert "no section model, lora" in capsys.readouterr().err
    adapted = make_run(tmp_path / "adapted", matrices=random_matrices(np.random.default_rng(0), [QUERY]))
    run("inspect", adapted, "--update-rank", code=3)  # whose config says that it has none
    assert "left no model/" in capsys.readouterr().err
