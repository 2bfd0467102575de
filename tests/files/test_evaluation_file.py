"""Rows of evaluations: appended at once, cut back by a resume, read back with real numbers."""

import json
import math

import pytest

from llama_exp.errors import InputError
from llama_exp.files.evaluation_file import EvaluationFile, add_to_summary, append_row, figures_of, read_evaluations

ROW = {"step": 3, "name": "docs", "kind": "set", "loss": 1.5, "items": 2, "tokens": 9, "seconds": 0.1, "file": "x"}


def test_a_run_that_goes_on_cuts_back_what_it_will_do_again(tmp_path):
    path = tmp_path / "evaluation.jsonl"
    file = EvaluationFile(path)
    file.on_evaluation(ROW)
    state = file.state()
    file.on_evaluation({**ROW, "step": 6})
    file.on_finish("preempted")
    again = EvaluationFile(path)
    again.restore(state)
    again.on_evaluation({**ROW, "step": 6, "loss": math.nan})
    again.on_finish("finished")
    rows = read_evaluations(path)
    assert [row["step"] for row in rows] == [3, 6] and math.isnan(rows[1]["loss"])


def test_a_new_run_begins_the_file_anew_and_no_file_has_no_rows(tmp_path):
    path = tmp_path / "evaluation.jsonl"
    assert read_evaluations(path) == []
    append_row(tmp_path, ROW)
    EvaluationFile(path).on_evaluation({**ROW, "name": "other"})
    assert [row["name"] for row in read_evaluations(path)] == ["other"]


@pytest.mark.parametrize("line", ['{"step": 1}', '{"name": 3, "step": 1}', '{"name": "a", "step": true}', "[]", "{"])
def test_a_line_that_is_no_row(tmp_path, line):
    path = tmp_path / "evaluation.jsonl"
    path.write_text(json.dumps(ROW) + f"\n{line}\n")
    with pytest.raises(InputError, match="line 2"):
        read_evaluations(path)


def test_figures_enter_the_summary_beside_others(tmp_path):
    (tmp_path / "summary.json").write_text('{"status": "finished", "evaluation": {"old": {"f1": 1}}}')
    add_to_summary(tmp_path, [ROW, {**ROW, "name": "nan", "loss": math.nan, "bits_per_byte": None}])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["evaluation"] == {"old": {"f1": 1}, "docs": {"loss": 1.5}, "nan": {"loss": "NaN"}}
    assert figures_of(ROW) == {"loss": 1.5}
    add_to_summary(tmp_path / "none", [ROW])
    assert not (tmp_path / "none").exists()
