"""Comparisons over the items of evaluations, against SciPy."""

import json

import numpy as np
import pytest
import scipy.stats
from made_runs import make_config, make_run

from llama_exp.errors import InputError
from llama_exp.report import Options, make_report
from llama_exp.report.tables import list_tables
from llama_exp.results import load_runs

NUM_ITEMS = 40


def add_items(folder, scores, fingerprint="f", name="docs", step=20):
    (folder / "evaluation").mkdir(exist_ok=True)
    place = f"evaluation/{name}-{step:08d}.jsonl"
    lines = [{"item": number, "accuracy": float(score), "text": "x"} for number, score in enumerate(scores)]
    (folder / place).write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = {"step": step, "name": name, "kind": "multiple_choice", "accuracy": float(np.mean(scores))}
    row |= {"items": len(scores), "fingerprint": fingerprint, "file": place}
    with (folder / "evaluation.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


@pytest.fixture
def scores(tmp_path):
    """(rank, seed) -> a score for each item; the runs of two ranks and two seeds that have them."""
    generator = np.random.default_rng(5)
    found = {}
    for rank in (2, 8):
        for seed in range(2):
            found[rank, seed] = generator.random(NUM_ITEMS) < 0.4 + rank / 40
            folder = make_run(tmp_path / f"{rank}_{seed}", make_config(seed, rank), 2.5 - rank / 100)
            add_items(folder, generator.random(NUM_ITEMS) < 0.3, step=10)  # an earlier one does not count
            add_items(folder, found[rank, seed])
    return found


def compare_on(folder):
    report = make_report(load_runs([folder]), Options(baseline="rank=2"))
    return report, report.comparisons.items


def test_items_are_paired(scores, tmp_path):
    report, (row,) = compare_on(tmp_path)
    one, other = (np.mean([scores[rank, seed] for seed in range(2)], axis=0) for rank in (8, 2))
    expected = scipy.stats.ttest_rel(one, other).confidence_interval(0.95)
    assert row.figure == "evaluation.docs.accuracy"
    assert (row.difference.n, row.difference.mean) == (NUM_ITEMS, pytest.approx(np.mean(one - other)))
    assert (row.difference.low, row.difference.high) == pytest.approx((expected.low, expected.high))
    (table,) = [table for table in list_tables(report) if table.name == "items"]
    assert [cell.text for cell in table.rows[0]][2:4] == ["docs: accuracy", str(NUM_ITEMS)]


def test_other_items_are_not_compared(scores, tmp_path):
    add_items(tmp_path / "8_1", scores[8, 1], fingerprint="another")
    assert compare_on(tmp_path)[1] == ()


def test_a_file_with_fewer_items_is_not_compared(scores, tmp_path):
    add_items(tmp_path / "8_1", scores[8, 1][:-1])
    assert compare_on(tmp_path)[1] == ()


def test_a_file_that_is_gone_is_not_compared(scores, tmp_path):
    (tmp_path / "8_1" / "evaluation" / "docs-00000020.jsonl").unlink()
    report, items = compare_on(tmp_path)
    assert items == ()
    assert "items" not in [table.name for table in list_tables(report)]


@pytest.mark.parametrize("content", ["nonsense\n", '{"item": "one"}\n', '{"accuracy": 1.0}\n'])
def test_a_damaged_file_is_named(scores, tmp_path, content):
    (tmp_path / "8_1" / "evaluation" / "docs-00000020.jsonl").write_text(content)
    with pytest.raises(InputError, match="docs-00000020.jsonl"):
        compare_on(tmp_path)


def test_a_file_outside_of_the_run_is_refused(scores, tmp_path):
    with (tmp_path / "8_1" / "evaluation.jsonl").open("a") as file:
        row = {"step": 30, "name": "docs", "accuracy": 1.0, "fingerprint": "f", "file": "../2_0/run.json"}
        file.write(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="leads out of its folder"):
        compare_on(tmp_path)
