"""The wide table: one line a step, a column for each figure, the checkpoint's part after a resume."""

import csv
import time

from mirror import expected_rows, report, row

from llama_exp.files.evaluation_file import EvaluationFile
from llama_exp.files.metrics_file import MetricsFile
from llama_exp.logger import CsvLogger


def read(folder):
    """Step -> figures of metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["step"]) for line in lines] == sorted({int(line["step"]) for line in lines})
    return {
        int(line["step"]): {key: float(value) for key, value in line.items() if key != "step" and value != ""}
        for line in lines
    }


def make(folder):
    folder.mkdir(exist_ok=True)
    return [MetricsFile(folder / "metrics.jsonl"), CsvLogger(folder=folder, name="n")]


def test_the_table_is_the_record(tmp_path):
    watching = make(tmp_path)
    report([watching[0], watching[1]], range(10))
    for observer in watching:
        observer.on_finish("finished")
    assert read(tmp_path) == expected_rows(tmp_path)


def test_each_line_is_there_when_the_next_step_begins(tmp_path):
    watching = make(tmp_path)
    report(watching, range(1, 4))
    assert sorted(read(tmp_path)) == [1, 2]


def test_a_resume_cuts_to_the_checkpoint(tmp_path):
    first = make(tmp_path)
    report(first, range(6))
    states = [observer.state() for observer in first]
    report(first, range(6, 9))  # and is killed
    second = make(tmp_path)
    for observer, state in zip(second, states, strict=True):
        observer.restore(state)
    report(second, range(6, 8))
    for observer in second:
        observer.on_finish("finished")
    assert read(tmp_path) == expected_rows(tmp_path) and sorted(read(tmp_path)) == list(range(8))


def test_a_logger_that_is_chosen_later_has_the_whole_run(tmp_path):
    """The run went without it up to the checkpoint, whose state it has no part in."""
    record = MetricsFile(tmp_path / "metrics.jsonl")
    report([record], range(6))
    state = record.state()
    report([record], range(6, 9))  # and is killed
    second = make(tmp_path)
    second[0].restore(state)
    report(second, range(6, 8))
    for observer in second:
        observer.on_finish("finished")
    assert read(tmp_path) == expected_rows(tmp_path) and sorted(read(tmp_path)) == list(range(8))


def test_numbers_that_are_none_stand_in_the_table(tmp_path):
    watching = make(tmp_path)
    for observer in watching:
        observer.on_metrics(row(1, loss=float("nan")))
        observer.on_metrics(row(2, loss=float("inf")))
        observer.on_finish("failed")
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["nan", "inf"]


def test_a_table_that_cannot_be_written_is_one_warning(tmp_path, caplog):
    (tmp_path / "metrics.csv").mkdir()
    watching = make(tmp_path)
    report(watching, range(6))
    for observer in watching:
        observer.on_finish("finished")
    assert len(caplog.records) == 1 and caplog.records[0].getMessage().startswith("CSV: log failed")
    assert len(expected_rows(tmp_path)) == 6


def test_very_wide_rows_cost_time_in_proportion(tmp_path):
    """Twenty thousand figures; looked up one by one in a list they would take seconds a row."""
    watching = make(tmp_path)
    wide = {f"größe_{number}": float(number) for number in range(20_000)}
    start = time.monotonic()
    for step in range(5):
        watching[1].on_metrics(row(step) | wide)
    watching[1].on_finish("finished")
    assert time.monotonic() - start < 5 and watching[1].failure is None
    assert len(read(tmp_path)[4]) > 20_000


def evaluation(step, **changes):
    row = {"step": step, "name": "docs", "kind": "set", "loss": 1.0 + step, "bits_per_byte": None, "items": 2}
    return {**row, "seconds": 9.0, "fingerprint": "f", "file": "evaluation/docs.jsonl", **changes}


def test_figures_of_evaluations_are_columns_and_survive_a_resume(tmp_path):
    def make_three():
        return [*make(tmp_path), EvaluationFile(tmp_path / "evaluation.jsonl")]

    def tell(observers, step):
        record, table, evaluations = observers
        report([record, table], [step])
        if step % 2 == 0:
            for observer in (evaluations, table):
                observer.on_evaluation(evaluation(step))

    first = make_three()
    for step in range(1, 5):
        tell(first, step)
    states = [observer.state() for observer in first]
    for step in range(5, 8):
        tell(first, step)  # and is killed
    second = make_three()
    for observer, state in zip(second, states, strict=True):
        observer.restore(state)
    for step in range(5, 7):
        tell(second, step)
    for observer in second:
        observer.on_finish("finished")
    found = {step: figures.get("evaluation/docs/loss") for step, figures in read(tmp_path).items()}
    assert found == {1: None, 2: 3.0, 3: None, 4: 5.0, 5: None, 6: 7.0}
    assert not any("items" in key or "seconds" in key for key in read(tmp_path)[2] if key.startswith("evaluation/"))
