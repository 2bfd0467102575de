"""What a run read when it began is compared with what it reads when it goes on; checkpoints that went are missed."""

import json

import pytest
import yaml

from llama_exp.errors import ExitCode, InputError
from llama_exp.run import recorded

FINGERPRINTS = {
    "dataset": {"train": {"fingerprint": "aaaa"}, "validation": {"fingerprint": "bbbb"}},
    "tokenizer": {"fingerprint": "cccc", "vocabulary_size": 300},
}


@pytest.fixture
def run(tmp_path):
    """The folder of a run that was cut off at step 6, with a checkpoint every 3 steps."""
    record = {"starts": [{"time": "2026-01-01T00:00:00+00:00"}], **FINGERPRINTS}
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": {"checkpoint_every_steps": 3}}))
    (tmp_path / "summary.json").write_text('{"status": "running"}')
    (tmp_path / "checkpoints" / "step-00000006").mkdir(parents=True)
    write_rows(tmp_path, 6)
    return tmp_path


def write_rows(folder, last):
    rows = [{"step": step, "split": "train", "loss": 1.0} for step in range(last + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def rewrite(run, **changes):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | changes))


def data(train="aaaa", validation="bbbb", tokenizer="cccc"):
    splits = {"train": {"fingerprint": train, "rows": 3}, "validation": {"fingerprint": validation}}
    return {"dataset": splits, "tokenizer": {"fingerprint": tokenizer}}


def test_the_same_data_and_tokenizer_go_on(run):
    recorded.check_data(run, **data())


@pytest.mark.parametrize(
    ("changes", "where", "found"),
    [
        ({"train": "dddd"}, ["dataset"], "train with fingerprint dddd, begun with aaaa"),
        ({"validation": "dddd"}, ["dataset"], "validation with fingerprint dddd, begun with bbbb"),
        ({"tokenizer": "dddd"}, ["tokenizer"], "fingerprint dddd, begun with cccc"),
        ({"train": "dddd", "tokenizer": "eeee"}, ["dataset", "tokenizer"], "train with fingerprint dddd"),
    ],
)
def test_other_data_and_another_tokenizer_do_not(run, changes, where, found):
    with pytest.raises(InputError) as caught:
        recorded.check_data(run, **data(**changes))
    assert [problem.where for problem in caught.value.problems] == where
    assert caught.value.problems[0].found.startswith(found) and caught.value.exit_code is ExitCode.INPUT
    assert all("resume=none" in problem.action for problem in caught.value.problems)


@pytest.mark.parametrize("record", [{}, {"dataset": 5, "tokenizer": []}, {"dataset": {"train": {"fingerprint": 1}}}])
def test_a_record_that_does_not_say_it_forbids_nothing(run, record):
    rewrite(run, **{"dataset": None, "tokenizer": None, **record})
    recorded.check_data(run, **data("x", "y", "z"))


REVISION = {"origin": "hf://org/m", "revision": "0123abc"}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("hf://org/m", "hf://org/m@0123abc"),
        ("hf://org/m@main", "hf://org/m@0123abc"),
        ("hf://org/m2", "hf://org/m2"),
        ("llama2_7b_en", "llama2_7b_en"),
        ("some/folder", "some/folder"),
    ],
)
def test_a_preset_is_taken_in_the_revision_that_the_run_began_with(run, source, found):
    assert recorded.preset_source(run, source) == source
    rewrite(run, preset=REVISION)
    assert recorded.preset_source(run, source) == found


def test_a_version_on_kaggle_is_taken_again(run):
    rewrite(run, preset={"origin": "kaggle://a/b/keras/c", "revision": "3"})
    assert recorded.preset_source(run, "kaggle://a/b/keras/c") == "kaggle://a/b/keras/c/3"
    assert recorded.preset_source(run, "kaggle://a/b/keras/c/2") == "kaggle://a/b/keras/c/3"
    assert recorded.preset_source(run, "kaggle://a/b/keras/cc") == "kaggle://a/b/keras/cc"


@pytest.mark.parametrize(("key", "now"), [("revision", "4567def"), ("digest", "f" * 64)])
def test_another_preset_does_not_go_on(run, key, now):
    facts = {"source": "hf://org/m", **REVISION, "digest": "e" * 64}
    recorded.check_preset(run, facts)
    rewrite(run, preset=facts)
    recorded.check_preset(run, facts)
    with pytest.raises(InputError, match=f"{now}, begun with {facts[key]}"):
        recorded.check_preset(run, facts | {key: now})


def test_a_runs_adapter_is_looked_for_before_it_goes_on(run):
    recorded.check_adapter(run, None)
    with pytest.raises(InputError, match=r"lora\.source"):
        recorded.check_adapter(run, str(run / "nowhere"))
    (run / "adapter.h5").write_bytes(b"x")
    recorded.check_adapter(run, str(run / "adapter.h5"))  # cut before run.json named it
    rewrite(run, lora={"sha256": "0"})
    with pytest.raises(InputError, match="another than the one"):
        recorded.check_adapter(run, str(run / "adapter.h5"))
    (run / "run.json").write_text("[]")
    with pytest.raises(InputError, match=r"run\.json"):
        recorded.check_adapter(run, str(run / "adapter.h5"))
    recorded.check_adapter(run, None)


def test_other_code_is_a_warning(caplog):
    state = {"commit": "aaaa", "dirty": True}
    recorded.tell_other_code({"git": state}, {"git": state}, False)
    recorded.tell_other_code({"git": {"commit": None}}, {"git": state}, False)
    recorded.tell_other_code({"git": 5}, {"git": state}, False)
    assert caplog.text == ""
    recorded.tell_other_code({"git": state}, {"git": state | {"commit": "bbbb"}}, False)
    assert "at commit bbbb, the run was last started with aaaa" in caplog.text
    recorded.tell_other_code({"git": state}, {"git": state}, True)
    assert "other uncommitted changes" in caplog.text


# --- checkpoints that are gone


def test_a_run_with_checkpoints_goes_on_without_a_word(run, caplog):
    recorded.check_progress(run)
    assert caplog.text == ""


@pytest.mark.parametrize("how", ["gone", "empty"])
@pytest.mark.parametrize(("status", "step"), [("running", 6), ("interrupted", 2), ("preempted", 1), ("finished", 6)])
def test_a_run_whose_checkpoints_are_gone_does_not_begin_again_in_silence(run, status, step, how):
    (run / "summary.json").write_text(json.dumps({"status": status}))
    (run / "checkpoints" / "step-00000006").rmdir()
    if how == "gone":
        (run / "checkpoints").rmdir()
    write_rows(run, step)
    with pytest.raises(InputError, match=f"checkpoints of the run are gone\n.*at step {step}\n.*resume=none"):
        recorded.check_progress(run)


@pytest.mark.parametrize(("status", "step"), [("running", 3), ("failed", 2), ("interrupted", 0)])
def test_a_run_that_was_cut_before_its_first_checkpoint_begins_again_and_says_so(run, caplog, status, step):
    (run / "summary.json").write_text(json.dumps({"status": status}))
    (run / "checkpoints" / "step-00000006").rmdir()
    write_rows(run, step)
    recorded.check_progress(run)
    assert f"no checkpoint (it ended as: {status}): the run begins again at step 0" in caplog.text


def test_a_run_that_could_write_no_checkpoint_begins_again_and_says_so(run, caplog):
    """On a full disk a run goes on past its first checkpoint."""
    (run / "summary.json").write_text(json.dumps({"status": "failed", "exit_code": ExitCode.STORAGE}))
    (run / "checkpoints" / "step-00000006").rmdir()
    recorded.check_progress(run)
    assert "no checkpoint (it ended as: failed): the run begins again at step 0" in caplog.text


def test_damaged_checkpoints_are_told_by_who_reads_them(run):
    (run / "checkpoints" / "step-00000006").rename(run / "checkpoints" / "step-00000006.corrupt-1")
    recorded.check_progress(run)


def test_a_file_in_the_place_of_the_checkpoints(run):
    (run / "checkpoints" / "step-00000006").rmdir()
    (run / "checkpoints").rmdir()
    (run / "checkpoints").write_text("x")
    with pytest.raises(InputError, match="no folder\n.*a file\n.*move it away"):
        recorded.check_progress(run)
