"""The loop: what it tells, how it stops, and that a cut run ends with the same bits as a straight one."""

import json
import math
import os
import signal

import numpy as np
import pytest
from daily import one_a_day, with_others
from keras import ops
from small_trainer import crash, numbers, stop_at, terminate, trainer, without_times
from trainer_doubles import Recorder

from llama_exp import backend
from llama_exp.errors import CallbackError, InputError, Interrupted, NumericalError, Preempted, StorageError
from llama_exp.files.process import ALONE, Process

pytestmark = pytest.mark.neutral

OPTIMIZERS = ("sgd", "lion", "adafactor", "muon")
VARIANTS = {
    "full": {"prompts": ["ab"]},
    "full-dropout-2x4": {"dropout": 0.2, "accumulation_steps": 2},
    "lora": {"lora": True},
    "lora-dropout-2x4": {"lora": True, "dropout": 0.2, "accumulation_steps": 2},
    "int8-lora": {"lora": True, "quantize": "int8"},
    "int4-lora-dropout": {"lora": True, "quantize": "int4", "dropout": 0.2},
    "int4-dora": {"dora": True, "quantize": "int4", "dropout": 0.2, "accumulation_steps": 2},
    "float8-lora-dropout": {"lora": True, "quantize": "float8", "dropout": 0.2},
    **{name: {"optimizer": name} for name in OPTIMIZERS},
}
DAILY = ("full", "lora-dropout-2x4")
PARTS = (
    "lora",
    "int4-lora-dropout",
    "int8-lora",
    "float8-lora-dropout",
    "full-dropout-2x4",
    *OPTIMIZERS,
)  # what the others do too
OTHERS = [name for name in VARIANTS if name not in DAILY + PARTS]


@pytest.mark.parametrize("variant", one_a_day(with_others(DAILY, OTHERS), PARTS))
def test_cut_and_continued_runs_equal_a_straight_one(tmp_path, variant):
    variant = VARIANTS[variant]
    run, backbone, optimizer, straight = trainer(tmp_path / "straight", **variant)
    expected_result = run.fit()
    expected = numbers(backbone, optimizer)

    observers = stop_at(3, terminate)  # at a step without a checkpoint or a finished validation of its own
    run, *_, recorder = trainer(tmp_path / "cut", observers=observers, **variant)
    with pytest.raises(Preempted, match="SIGTERM"):
        run.fit()
    assert recorder.status == "preempted"
    run, *_ = trainer(tmp_path / "cut", observers=stop_at(5, crash), **variant)
    with pytest.raises(CallbackError, match="power cut"):
        run.fit()
    run, backbone, optimizer, recorder = trainer(tmp_path / "cut", **variant)
    result = run.fit()

    for ours, theirs in zip(numbers(backbone, optimizer), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert without_times(recorder.rows) == without_times(straight.rows)
    assert recorder.samples == straight.samples
    assert (result.steps, result.validation_loss) == (6, expected_result.validation_loss)
    assert (result.tokens, result.best_step) == (expected_result.tokens, expected_result.best_step)


def test_lora_checkpoints_hold_adapters_only_and_the_base_stays(tmp_path):
    run, backbone, _, _ = trainer(tmp_path, lora=True)
    frozen = {v.path: ops.convert_to_numpy(v).copy() for v in backbone.weights if not v.trainable}
    run.fit()
    saved = run._checkpoints.newest()
    assert set(saved.tensors["trainable"]) == {v.path for v in backbone.trainable_variables}
    assert all("/lora_" in path for path in saved.tensors["trainable"])
    for variable in backbone.weights:
        if not variable.trainable:
            np.testing.assert_array_equal(ops.convert_to_numpy(variable), frozen[variable.path])


def test_another_base_is_refused(tmp_path):
    trainer(tmp_path, lora=True)[0].fit()
    run, backbone, _, _ = trainer(tmp_path, lora=True)
    backbone.layer_norm.scale.assign(np.full(16, 0.5))
    with pytest.raises(InputError, match="base digest"):
        run.fit()


def test_another_model_is_refused_and_nothing_changes(tmp_path):
    trainer(tmp_path)[0].fit()
    run, backbone, optimizer, _ = trainer(tmp_path, lora=True, max_steps=8)
    before = numbers(backbone, optimizer)
    saved = run._checkpoints.newest()
    with pytest.raises(InputError):
        run.restore(saved)
    for ours, theirs in zip(numbers(backbone, optimizer), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_rows_samples_and_facts(tmp_path):
    run, _, optimizer, recorder = trainer(tmp_path, prompts=["ab", "xyz"])
    result = run.fit()
    train = [row for row in recorder.rows if row["split"] == "train"]
    validation = [row for row in recorder.rows if row["split"] == "validation"]
    assert recorder.rows[0]["split"] == "validation" and recorder.rows[0]["step"] == 0
    assert [row["step"] for row in train] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in validation] == [0, 3, 6]
    expected = {"step", "split", "loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second"}
    assert all(set(row) == expected | {"peak_memory_bytes", "mfu", "seconds"} for row in train)
    assert all(row["perplexity"] == pytest.approx(math.exp(row["loss"])) for row in validation)
    assert [row["learning_rate"] for row in train[:2]] == pytest.approx([0.01, 0.02])
    assert train[0]["tokens_per_second"] is None and train[3]["tokens_per_second"] > 0 and train[3]["mfu"] > 0
    assert train[-1]["tokens"] == result.tokens > 0
    assert result.validation_loss == validation[-1]["loss"] < validation[0]["loss"]
    assert [sample[:2] for sample in recorder.samples] == [(s, p) for s in (0, 3, 6) for p in ("ab", "xyz")]
    assert all(len(text) == 1 + len(prompt) + 5 for _, prompt, text in recorder.samples)
    assert recorder.facts["max_steps"] == 6 and recorder.facts["num_trainable_parameters"] > 0
    assert recorder.status == "finished" and int(ops.convert_to_numpy(optimizer.iterations)) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000006"]
    json.dumps(recorder.rows)


class Watcher(Recorder):
    """Also wants to know about every step and what happens beside them."""

    def __init__(self):
        super().__init__()
        self.told = []

    def on_step(self, step, loss, tokens):
        self.told.append((step, loss, tokens))

    def on_phase(self, phase):
        self.told.append(phase)


def test_every_step_and_what_happens_beside_it_is_told(tmp_path):
    watcher = Watcher()
    options = {"max_steps": 3, "validate_every_steps": 2, "log_every_steps": 100, "checkpoint_every_steps": 100}
    run, _, _, recorder = trainer(
        tmp_path, prompts=["ab"], observers={"watcher": watcher}, sample_at_start=False, **options
    )
    run.fit()
    names = [entry if isinstance(entry, str | None) else entry[0] for entry in watcher.told]
    start = ["compiling and validating", "compiling the step", 1, None, 2]
    assert names == [*start, "validating", "sampling", None, 3, "validating", "sampling", "saving"]
    *_, (step, loss, tokens) = [entry for entry in watcher.told if isinstance(entry, tuple)]
    assert (step, loss, tokens) == (3, recorder.rows[-2]["loss"], recorder.rows[-2]["tokens"])
    assert [sample[0] for sample in recorder.samples] == [2, 3]  # random weights have nothing to show at the start


def test_validation_weighs_tokens_not_batches(tmp_path):
    whole = trainer(tmp_path / "a", max_steps=1, batch_size=7)
    parts = trainer(tmp_path / "b", max_steps=1, batch_size=3)
    for run, *_ in (whole, parts):
        run.fit()
    assert parts[3].rows[0]["loss"] == pytest.approx(whole[3].rows[0]["loss"], rel=1e-6)
    first = trainer(tmp_path / "c", max_steps=1, batch_size=3, validation_batches=1)
    first[0].fit()
    assert first[3].rows[0]["loss"] != pytest.approx(whole[3].rows[0]["loss"], rel=1e-6)


def test_a_finished_run_returns_its_result_again(tmp_path):
    result = trainer(tmp_path)[0].fit()
    run, _, _, recorder = trainer(tmp_path)
    assert run.fit() == result
    assert recorder.status == "finished" and len(recorder.rows) == 9


def test_non_finite_gradients_stop_before_they_are_applied_or_saved(tmp_path):
    def poison():
        scale = backbone.layer_norm.scale
        scale.assign(np.full(scale.shape, np.nan))

    run, backbone, _, recorder = trainer(tmp_path, observers=stop_at(5, poison), validate_every_steps=100)
    with pytest.raises(NumericalError, match="step 6: loss nan(.|\n)*last good checkpoint: step 4"):
        run.fit()
    assert recorder.status == "failed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]


def test_overflows_of_float16_are_skipped_counted_and_remembered(tmp_path, caplog):
    scale = 2.0**24  # too large for the gradients here, for five steps at least
    run, _, optimizer, recorder = trainer(tmp_path, loss_scale=scale, max_steps=10)
    result = run.fit()
    finite = [math.isfinite(row["grad_norm"]) for row in recorder.rows if row["split"] == "train"]
    assert finite == sorted(finite) and finite[-1] and 5 <= result.skipped_steps == finite.count(False)
    assert int(ops.convert_to_numpy(optimizer.inner_optimizer.iterations)) == finite.count(True)
    assert caplog.text.count("no fast float16") == (backend.device_kind() == "cpu")
    saved = run._checkpoints.newest().tensors["optimizer"]
    (last,) = (float(value) for name, value in saved.items() if "dynamic_scale" in name)
    assert last == scale / 2**result.skipped_steps


def test_interrupt_is_told_apart_and_state_is_saved(tmp_path):
    observers = stop_at(1, lambda: os.kill(os.getpid(), signal.SIGINT))
    run, *_, recorder = trainer(tmp_path, observers=observers)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="resume=auto"):
        run.fit()
    assert recorder.status == "interrupted" and signal.getsignal(signal.SIGINT) is before
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_signal_during_validation_is_answered_without_a_row(tmp_path):
    run, *_, recorder = trainer(tmp_path)
    batch = run._measuring._evaluation._examples.batch

    def stop(indices):
        terminate()
        return batch(indices)

    run._measuring._evaluation._examples.batch = stop
    with pytest.raises(Preempted):
        run.fit()
    assert recorder.rows == []
    run, *_, recorder = trainer(tmp_path)
    run.fit()
    assert [row["step"] for row in recorder.rows if row["split"] == "validation"] == [0, 3, 6]


def test_a_full_disk_is_forgiven_twice(tmp_path, monkeypatch, caplog):
    run, *_ = trainer(tmp_path, checkpoint_every_steps=1)
    save, failures = run._checkpoints.save, [3]

    def fail(step, *arguments):
        if failures[0]:
            failures[0] -= 1
            raise StorageError()
        return save(step, *arguments)

    monkeypatch.setattr(run._checkpoints, "save", fail)
    with pytest.raises(StorageError):
        run.fit()
    failures[0] = 2
    run, *_ = trainer(tmp_path, checkpoint_every_steps=1)
    save = run._checkpoints.save
    monkeypatch.setattr(run._checkpoints, "save", fail)
    assert run.fit().steps == 6
    assert caplog.text.count("the run goes on") == 4


def test_other_threads_are_warned_about(tmp_path, caplog):
    trainer(tmp_path, max_steps=2)[0].fit()
    run, *_ = trainer(tmp_path)
    run._checkpoints.facts["threads"] = 8
    run.fit()
    assert "threads is 8" in caplog.text and "not bitwise" in caplog.text


# --- one process writes

SECOND = Process(rank=1, size=2)


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_who_is_not_the_writer_computes_the_same_and_leaves_nothing(tmp_path, caplog, lora):
    options = {"lora": lora, "dropout": 0.2, "prompts": ["ab"]}
    run, backbone, optimizer, recorder = trainer(tmp_path / "writer", **options)
    expected = run.fit()
    caplog.clear()
    second, its_backbone, its_optimizer, its_recorder = trainer(tmp_path / "second", process=SECOND, **options)
    found = second.fit()
    assert (found.steps, found.tokens, found.validation_loss) == (6, expected.tokens, expected.validation_loss)
    for ours, theirs in zip(numbers(its_backbone, its_optimizer), numbers(backbone, optimizer), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not (tmp_path / "second").exists()
    assert recorder.status == "finished" and len(recorder.rows) > 0
    assert its_recorder.rows == [] and its_recorder.samples == [] and its_recorder.status is None
    assert not [record for record in caplog.records if record.name.startswith("llama_exp") and record.levelno > 20]


def test_who_is_not_the_writer_goes_on_from_the_writers_checkpoints_and_changes_none(tmp_path):
    straight, backbone, optimizer, _ = trainer(tmp_path / "straight")
    straight.fit()
    run, *_ = trainer(tmp_path / "cut", observers=stop_at(4, crash))
    with pytest.raises(CallbackError):
        run.fit()
    run, *_ = trainer(tmp_path / "cut", max_steps=4, checkpoint_every_steps=1)
    run.fit()
    (tmp_path / "cut/step-00000004/trainable.safetensors").write_bytes(b"half of it")
    before = files_in(tmp_path / "cut")
    second, its_backbone, its_optimizer, _ = trainer(tmp_path / "cut", process=SECOND)
    second.fit()
    for ours, theirs in zip(numbers(its_backbone, its_optimizer), numbers(backbone, optimizer), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert files_in(tmp_path / "cut") == before


def test_every_process_stops_at_a_signal_and_the_writer_says_so(tmp_path, caplog):
    for process, count in ((ALONE, 1), (SECOND, 0)):
        caplog.clear()
        run, *_ = trainer(tmp_path / str(process.rank), process=process)
        run._batches.arrays = terminating(run._batches.arrays)
        with pytest.raises(Preempted, match="step 1"):
            run.fit()
        assert caplog.text.count("stopping after this step") == count


def terminating(function):
    """The function, after a signal."""

    def call(*arguments):
        terminate()
        return function(*arguments)

    return call
