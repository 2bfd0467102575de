"""Reports on runs and sweeps whose files are damaged in any way: told as an error with its file, or reported."""

import io
import json
import random

import pytest
import yaml
from made_runs import make_grid
from mutations import mutated_bytes, mutated_value
from rich.console import Console

from llama_exp.errors import LlamaExpError
from llama_exp.report import Options, csv_files, latex, make_report, markdown
from llama_exp.report.terminal import show
from llama_exp.results import list_tidy_rows, load_runs

FILES = (
    "config.yaml",
    "run.json",
    "summary.json",
    "metrics.jsonl",
    "evaluation.jsonl",
    "../sweep.json",
    "../sweep.jsonl",
)
# What of these cannot be read is as if it had not been written: a kill cuts them short.
LENIENT = ("summary.json", "../sweep.jsonl")
MUTATIONS = 12


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    losses = {(rank, 1e-3, seed): 2.5 - rank / 100 + seed / 1000 for rank in (2, 8) for seed in range(2)}
    sweep = make_grid(tmp_path_factory.mktemp("damaged") / "sweep", losses)
    for run in (path for path in sweep.iterdir() if path.is_dir()):
        row = {
            "step": 20,
            "name": "docs",
            "kind": "set",
            "loss": 2.0,
            "items": 5,
            "fingerprint": "f",
            "file": "x.jsonl",
        }
        (run / "evaluation.jsonl").write_text(json.dumps(row) + "\n")
    return sweep


def damage(draw, path):
    content = path.read_bytes()
    if draw.random() < 0.4:
        return mutated_bytes(draw, content)
    if path.suffix == ".yaml":
        return yaml.safe_dump(mutated_value(draw, yaml.safe_load(content))).encode()
    if path.suffix == ".json":
        return json.dumps(mutated_value(draw, json.loads(content))).encode()
    rows = mutated_value(draw, [json.loads(line) for line in content.splitlines()])
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def report_everything(sweep):
    runs = load_runs([sweep])
    list_tidy_rows(runs)
    report = make_report(runs, Options())
    markdown.write_markdown(report, sweep, [])
    latex.write_latex(report, [])
    csv_files.write_csv(report)
    show(report, Console(file=io.StringIO(), width=80))


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_record_is_told_or_reported(sweep, name):
    draw = random.Random(name)
    path = next(run for run in sorted(sweep.iterdir()) if run.is_dir()) / name
    whole, told = path.read_bytes(), 0
    try:
        for _ in range(MUTATIONS):
            path.write_bytes(damage(draw, path))
            try:
                report_everything(sweep)
            except LlamaExpError as error:
                told += 1
                assert all(problem.where and problem.found and problem.action for problem in error.problems)
            path.write_bytes(whole)
    finally:
        path.write_bytes(whole)
    assert told or name in LENIENT
    report_everything(sweep)
