"""metrics.jsonl and samples.md."""

import json
import math

import pytest

from llama_exp.errors import InputError
from llama_exp.files.metrics_file import MetricsFile, Samples, read_metrics


def row(step, loss=1.0, split="train"):
    return {"step": step, "split": split, "loss": loss}


def test_every_row_is_on_the_disk_at_once_and_strict(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.on_start({"anything": object()})
    metrics.on_metrics(row(0, split="validation"))
    metrics.on_metrics(row(1, math.nan))
    metrics.on_sample(1, "a", "b")
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 0, "split": "validation", "loss": 1.0},
        {"step": 1, "split": "train", "loss": "NaN"},
    ]
    metrics.on_finish("finished")


def test_reading_gives_real_numbers_and_leaves_out_a_line_that_was_cut_short(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": "NaN", "split": "train"}\n{"step": 2, "loss": "-Infinity"}\n{"step": 3, "lo')
    rows = read_metrics(file)
    assert [entry["step"] for entry in rows] == [1, 2]
    assert math.isnan(rows[0]["loss"]) and rows[0]["split"] == "train"
    assert rows[1]["loss"] == -math.inf


def test_reading_names_a_damaged_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(InputError, match="line 2"):
        read_metrics(file)


def test_no_file_has_no_rows(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_resume_redoes_steps_without_duplicates(tmp_path):
    first = MetricsFile(tmp_path / "metrics.jsonl")
    for step in range(1, 4):
        first.on_metrics(row(step))
    state = json.loads(json.dumps(first.state()))
    for step in range(4, 7):
        first.on_metrics(row(step))
    second = MetricsFile(tmp_path / "metrics.jsonl")
    second.on_start({})
    second.restore(state)
    for step in range(4, 9):
        second.on_metrics(row(step))
    assert [entry["step"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 9))


def test_samples_are_readable(tmp_path):
    samples = Samples(tmp_path / "samples.md")
    samples.on_metrics(row(10))
    samples.on_sample(10, "The zip function", "The zip function pairs ``` things\x1b[31m")
    samples.on_sample(10, "Zip", " files\nare archives")
    samples.on_sample(20, "The", "The end")
    samples.on_finish("finished")
    text = (tmp_path / "samples.md").read_text()
    assert text.count("# Samples\n") == 1 and text.startswith("# Samples\n")
    assert text.count("## Step 10\n") == 1 and text.count("## Step 20\n") == 1
    assert "Prompt:\n\n```text\nThe zip function\n```\n" in text
    assert "Continuation:\n\n````text\n pairs ``` things\\x1b[31m\n````\n" in text
    assert "```text\n files\nare archives\n```" in text
    assert "```text\n end\n```" in text


def test_samples_are_cut_back_and_keep_their_headings(tmp_path):
    straight, broken = Samples(tmp_path / "straight.md"), Samples(tmp_path / "broken.md")
    for samples in (straight, broken):
        samples.on_sample(0, "a", "ab")
        samples.on_sample(10, "a", "abc")
    state = broken.state()
    broken.on_sample(10, "b", "to be redone")
    broken.on_sample(20, "b", "to be redone")
    resumed = Samples(tmp_path / "broken.md")
    resumed.restore(json.loads(json.dumps(state)))
    for samples in (straight, resumed):
        samples.on_sample(10, "b", "bcd")
        samples.on_sample(20, "b", "bcd")
    assert (tmp_path / "broken.md").read_bytes() == (tmp_path / "straight.md").read_bytes()


TORN = {"half a row": b'{"step": 4, "lo', "zeros": bytes(40), "nothing": b"", "one byte": b"{"}


@pytest.mark.parametrize("name", TORN)
def test_a_file_that_a_power_cut_tore_goes_on_with_whole_rows(tmp_path, caplog, name):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    for step in range(1, 5):
        metrics.on_metrics(row(step))
    state = metrics.state()
    whole = path.read_bytes()[: path.read_bytes().rindex(b"\n", 0, -1) + 1]
    path.write_bytes(whole + TORN[name])
    again = MetricsFile(path)
    again.restore(state)
    again.on_metrics(row(5))
    assert [entry["step"] for entry in read_metrics(path)] == [1, 2, 3, 5]
    assert ("cut off" in caplog.text) == (name != "nothing")


def test_a_file_of_one_half_row_is_emptied(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "lo')
    MetricsFile(path).restore({"offset": 60})
    assert path.read_bytes() == b""


NO_ROWS = {
    "no step": ({"loss": 1.0}, "step is null"),
    "step is text": ({"step": "3", "loss": 1.0}, 'step is "3"'),
    "step is true": ({"step": True, "loss": 1.0}, "step is true"),
    "step is negative": ({"step": -1, "loss": 1.0}, "step is -1"),
    "no loss": ({"step": 1}, "loss is null"),
    "loss is text": ({"step": 1, "loss": "x"}, 'loss is "x"'),
    "loss is a list": ({"step": 1, "loss": [1]}, "loss is [1]"),
    "split is a number": ({"step": 1, "loss": 1.0, "split": 5}, "split is 5"),
    "tokens is text": ({"step": 1, "loss": 1.0, "tokens": "many"}, 'tokens is "many"'),
}


@pytest.mark.parametrize("name", NO_ROWS)
def test_a_line_that_is_no_row_is_named(tmp_path, name):
    content, found = NO_ROWS[name]
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps(row(1)) + "\n" + json.dumps(content) + "\n")
    with pytest.raises(InputError) as caught:
        read_metrics(file)
    assert caught.value.problems[0].found == f"line 2: {found}"


@pytest.mark.parametrize("state", [{}, {"offset": None}, {"offset": "5"}, {"offset": -5}, {"offset": 1.5}, []])
def test_a_state_without_a_length_is_refused_before_anything_is_cut(tmp_path, state):
    path = tmp_path / "metrics.jsonl"
    path.write_text("{}\n")
    with pytest.raises((KeyError, TypeError, ValueError)):
        MetricsFile(path).restore(state)
    assert path.read_text() == "{}\n"
