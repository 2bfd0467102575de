"""Predicted peaks beside those that were measured: the table of docs/how_to/plan.md, row by row."""

import re
from pathlib import Path

import pytest

from llama_exp.config.check import check_arguments
from llama_exp.run.plan import make_plan

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| ([^|]+) \| `([^|`]*)` \| ([\d.]+) GB \| ([\d.]+) GB \| ([\d.]+) \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "how_to" / "plan.md").read_text(encoding="utf-8"))


def test_there_are_rows():
    assert len(ROWS) >= 15


@pytest.mark.parametrize(("name", "line", "predicted", "measured", "ratio"), ROWS, ids=[row[0] for row in ROWS])
def test_a_documented_prediction_is_that_of_today_and_near_the_measured_peak(name, line, predicted, measured, ratio):
    short = ["trainer.max_steps=4", "trainer.validation_batches=2", "trainer.sample_prompts=[]", "logger=none"]
    plan = make_plan(check_arguments([*line.split(), *short]).config)
    assert f"{plan.peak_bytes / 1e9:.2f}" == predicted
    assert float(predicted) / float(measured) == pytest.approx(float(ratio), abs=0.011)
    assert 0.85 <= plan.peak_bytes / 1e9 / float(measured) <= 1.15
