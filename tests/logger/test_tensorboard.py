"""Event files, read back by TensorBoard's own reader."""

import sys

import pytest
from mirror import expected_rows, report, row

from llama_exp.files.metrics_file import MetricsFile
from llama_exp.logger import TensorBoardLogger

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder):
    """Step -> scalars; fails if a step occurs twice."""
    events = accumulator.EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    steps = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            assert tag not in steps.setdefault(event.step, {})
            steps[event.step][tag] = event.value
    return steps, events


def make(folder, **more):
    folder.mkdir(exist_ok=True)
    return [MetricsFile(folder / "metrics.jsonl"), TensorBoardLogger(folder=folder, name="n", **more)]


def finish(watching):
    for observer in watching:
        observer.on_finish("finished")


def test_the_events_are_the_record(tmp_path):
    watching = make(tmp_path, config={"lora.rank": 8, "hub.token": "canary"})
    report(watching, range(10))
    finish(watching)
    steps, events = read(tmp_path)
    expected = expected_rows(tmp_path)
    assert steps == {step: pytest.approx(values, rel=1e-6) for step, values in expected.items()}  # float32
    texts = {
        tag: [event.tensor_proto.string_val[0].decode() for event in events.Tensors(tag)]
        for tag in ("config", "samples", "status")
    }
    assert "| `lora.rank` | 8 |" in texts["config"][0] and "canary" not in texts["config"][0]
    assert texts["samples"] == ["The <zip> function"] * 3 and texts["status"] == ["finished"]


def test_a_resume_shows_no_step_twice(tmp_path):
    first = make(tmp_path)
    report(first, range(6))
    states = [observer.state() for observer in first]
    report(first, range(6, 9))  # and is killed
    second = make(tmp_path)
    for observer, state in zip(second, states, strict=True):
        observer.restore(state)
    report(second, range(6, 8))
    finish(second)
    assert sorted(read(tmp_path)[0]) == list(range(8))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_other_files_of_the_folder_stay(tmp_path):
    (tmp_path / "tensorboard").mkdir()
    profile = tmp_path / "tensorboard" / "events.out.tfevents.1.host.profile"
    profile.write_bytes(b"")
    watching = make(tmp_path)
    report(watching, range(2))
    finish(watching)
    assert profile.exists()


def test_rows_are_readable_before_the_end(tmp_path):
    report(make(tmp_path), range(3))
    assert sorted(read(tmp_path)[0]) == [0, 1, 2]


def test_nan_and_infinity_are_kept(tmp_path):
    watching = make(tmp_path)
    for observer in watching:
        observer.on_metrics(row(1, loss=float("nan")))
        observer.on_metrics(row(2, loss=float("-inf")))
    finish(watching)
    steps, _ = read(tmp_path)
    assert str(steps[1]["train/loss"]) == "nan" and steps[2]["train/loss"] == float("-inf")


def test_a_package_that_breaks_is_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    watching = make(tmp_path)
    report(watching, range(6))
    finish(watching)
    assert len(caplog.records) == 1 and caplog.records[0].getMessage().startswith("TensorBoard: log failed")
    assert len(expected_rows(tmp_path)) == 6
