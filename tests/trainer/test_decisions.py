"""Figures decide: which checkpoint stays, which weights a run leaves, when it ends; the same after a cut as without."""

import math

import numpy as np
import pytest
from small_trainer import crash, numbers, stop_at, terminate, trainer, without_times
from trainer_doubles import CountingStep, Recorder, ScriptedEvaluations, WeightsEvaluation

from llama_exp.errors import CallbackError, InputError, Preempted, StorageError
from llama_exp.files.process import Process
from llama_exp.limits import ImpossibleValue
from llama_exp.trainer import loop

pytestmark = pytest.mark.neutral

SCORE = "evaluation.my.task.score:max"
# Step -> score: the best is that of step 3, and nothing behind it is better.
SCORES = {0: 0.1, 1: 0.3, 2: float("nan"), 3: 0.8, 4: 0.5, 5: 0.8, 6: 0.2}
BEST = {"keep_best": SCORE, "export": "best", "keep": 1}


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """No test here is about the mathematics; one of them uses it."""
    if request.node.name != test_a_cut_run_decides_the_same.__name__:
        monkeypatch.setattr(loop, "TrainStep", CountingStep)
        monkeypatch.setattr(loop, "Evaluation", WeightsEvaluation)


def steps_kept(folder):
    return sorted(int(path.name.removeprefix("step-")) for path in folder.iterdir())


def trainable(backbone):
    return [np.asarray(variable.value).copy() for variable in backbone.trainable_variables]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_best_checkpoint_stays_and_its_weights_are_left(tmp_path):
    seen = {}

    def keep(step):
        seen[step] = trainable(backbone)

    run, backbone, _, recorder = trainer(tmp_path, evaluations=ScriptedEvaluations(SCORES, act=keep), **BEST)
    result = run.fit()
    assert steps_kept(tmp_path) == [3, 6]  # 3 is no step of checkpoint_every_steps
    assert_same(trainable(backbone), seen[3])
    assert result.best == {"figure": "evaluation.my.task.score", "step": 3, "value": 0.8}
    assert (result.steps, result.exported_step, result.stopped) == (6, 3, None)
    loss = {row["step"]: row["loss"] for row in recorder.rows if row["split"] == "validation"}
    assert result.figures["evaluation"] == {"my.task": {"score": 0.8}}
    assert result.figures["validation"] == {"loss": loss[3], "perplexity": math.exp(loss[3])}
    assert result.validation_loss == loss[6] != loss[3]
    assert [row["step"] for row in recorder.evaluations] == [0, 1, 2, 3, 4, 5, 6]


def test_what_is_not_known_of_the_best_weights_is_measured(tmp_path):
    """Validation at 0 and 6 alone, evaluations at each step; and the other way round."""
    options = {**BEST, "validate_every_steps": 6}
    run, *_, recorder = trainer(tmp_path / "a", evaluations=ScriptedEvaluations(SCORES), **options)
    result = run.fit()
    straight, *_, other = trainer(tmp_path / "b", validate_every_steps=3)
    straight.fit()
    loss = {row["step"]: row["loss"] for row in other.rows if row["split"] == "validation"}
    assert result.figures["validation"]["loss"] == loss[3]
    assert [row["step"] for row in recorder.rows if row["split"] == "validation"] == [0, 6]

    evaluations = ScriptedEvaluations(SCORES, every=100)
    losses = {
        "keep_best": "validation.loss",
        "export": "best",
    }  # the weights of step 0 are the best
    run, *_, recorder = trainer(tmp_path / "c", evaluations=evaluations, **losses)
    result = run.fit()
    assert result.exported_step == result.best_step < 6
    assert evaluations.steps == sorted({0, 6}) + [result.exported_step] * (result.exported_step != 0)
    assert result.figures["evaluation"]["my.task"]["score"] == SCORES[result.exported_step]
    assert result.figures["validation"]["loss"] == result.best_validation_loss


def test_a_cut_run_decides_the_same(tmp_path):
    options = {**BEST, "lora": True, "dropout": 0.2, "validate_every_steps": 2}
    run, backbone, optimizer, straight = trainer(tmp_path / "a", evaluations=ScriptedEvaluations(SCORES), **options)
    expected = run.fit()
    weights = numbers(backbone, optimizer)

    def signal_at(wanted):
        return lambda step: terminate() if step == wanted else None

    for cut in (3, 6):  # in the middle of an evaluation; then of the last one
        evaluations = ScriptedEvaluations(SCORES, act=signal_at(cut))
        run, *_, recorder = trainer(tmp_path / "b", evaluations=evaluations, **options)
        with pytest.raises(Preempted, match=f"step {cut}"):
            run.fit()
        assert recorder.status == "preempted" and cut not in evaluations.steps
    again = ScriptedEvaluations(SCORES)
    run, *_ = trainer(tmp_path / "b", evaluations=again, **options)
    assert run.fit().best == expected.best
    assert again.steps == [6]
    run, backbone, optimizer, recorder = trainer(tmp_path / "b", evaluations=again, **options)
    result = run.fit()
    assert again.steps == [6]  # none of a step is done twice
    assert (result.best, result.figures, result.exported_step) == (expected.best, expected.figures, 3)
    assert_same(numbers(backbone, optimizer), weights)
    assert without_times(recorder.rows) == without_times(straight.rows)
    assert [row["step"] for row in recorder.evaluations] == [row["step"] for row in straight.evaluations]
    assert steps_kept(tmp_path / "b") == [3, 6]


def test_a_signal_while_the_best_weights_are_measured_leaves_a_run_that_goes_on(tmp_path):
    options = {**BEST, "validate_every_steps": 6}
    run, *_ = trainer(tmp_path, evaluations=ScriptedEvaluations(SCORES), **options)
    restore = run._saving.restore_weights
    run._saving.restore_weights = lambda step: (restore(step), terminate())
    with pytest.raises(Preempted, match="step 6, checkpoint 6"):
        run.fit()
    run, backbone, *_ = trainer(tmp_path, evaluations=ScriptedEvaluations(SCORES), **options)
    assert run.fit().exported_step == 3


def test_early_stopping_ends_a_run_as_finished_at_the_same_step_after_a_cut(tmp_path):
    options = {"stop_early": SCORE, "patience": 2, "validate_every_steps": 100, "checkpoint_every_steps": 100}
    scores = {0: 0.1, 1: 0.3, 2: 0.3, 3: 0.35, 4: 0.4, 5: 0.4, 6: 0.9}
    straight, backbone, optimizer, recorder = trainer(
        tmp_path / "a", evaluations=ScriptedEvaluations(scores), min_delta=0.1, **options
    )
    expected = straight.fit()  # 0.3 at step 1; 2 and 3 are no improvements by more than 0.1
    assert expected.steps == 3 and recorder.status == "finished"
    assert expected.stopped == (
        "evaluation.my.task.score has not improved by more than 0.1 in 2 evaluations: best 0.3 at step 1"
    )
    assert [row["step"] for row in recorder.rows if row["split"] == "validation"] == [0, 3]  # the last one is whole
    assert steps_kept(tmp_path / "a") == [3]

    run, *_ = trainer(
        tmp_path / "b",
        evaluations=ScriptedEvaluations(scores),
        min_delta=0.1,
        observers=stop_at(2, terminate),
        **options,
    )
    with pytest.raises(Preempted, match="step 2"):
        run.fit()
    for _ in range(2):  # goes on to the end; and again from there
        run, its_backbone, its_optimizer, _ = trainer(
            tmp_path / "b", evaluations=ScriptedEvaluations(scores), min_delta=0.1, **options
        )
        result = run.fit()
        assert (result.steps, result.stopped) == (3, expected.stopped)
        assert_same(numbers(its_backbone, its_optimizer), numbers(backbone, optimizer))
    run, *_ = trainer(
        tmp_path / "b", evaluations=ScriptedEvaluations(scores), min_delta=0.1, **options | {"patience": 3}
    )
    assert (run.fit().steps, run.fit().stopped) == (6, None)  # 0.45 > 0.3 + 0.1 only at step 6


def test_a_figure_that_is_never_a_number_is_never_the_best(tmp_path, caplog):
    scores = dict.fromkeys(range(7), float("nan"))
    options = {"stop_early": SCORE, "patience": 4, **BEST}
    run, *_ = trainer(tmp_path, evaluations=ScriptedEvaluations(scores), **options)
    result = run.fit()
    assert (result.best, result.exported_step, result.steps) == (None, 3, 3)
    assert result.stopped.endswith("in 4 evaluations: it never was a number")
    assert "never a number: the last weights" in caplog.text


def test_a_best_checkpoint_that_cannot_be_written_is_not_the_best(tmp_path, monkeypatch):
    run, *_ = trainer(tmp_path, evaluations=ScriptedEvaluations(SCORES), **BEST)
    save = run._checkpoints.save

    def fail(step, *arguments):
        if step == 3:
            raise StorageError()
        return save(step, *arguments)

    monkeypatch.setattr(run._checkpoints, "save", fail)
    assert run.fit().best == {"figure": "evaluation.my.task.score", "step": 5, "value": 0.8}


def test_a_best_checkpoint_that_is_gone(tmp_path, caplog):
    run, *_ = trainer(tmp_path, evaluations=ScriptedEvaluations(SCORES), observers=stop_at(5, crash), **BEST)
    with pytest.raises(CallbackError):
        run.fit()
    assert steps_kept(tmp_path) == [3, 4]
    (tmp_path / "step-00000003/trainable.safetensors").write_bytes(b"half of it")
    run, *_ = trainer(tmp_path, evaluations=ScriptedEvaluations(SCORES), **BEST)
    assert run.fit().best["step"] == 5 and "(step 3) is gone or damaged" in caplog.text
    (tmp_path / "step-00000005/manifest.json").unlink()
    run, *_ = trainer(tmp_path, evaluations=ScriptedEvaluations(SCORES), **BEST)
    run._checkpoints.holds = lambda step: True  # it goes between the beginning and the end
    with pytest.raises(InputError, match="is no valid checkpoint"):
        run.fit()


def test_an_earlier_checkpoint_still_has_its_best(tmp_path):
    """Each checkpoint that stays keeps the one that was the best when it was written."""
    scores = {0: 0.1, 1: 0.9, 2: 0.2, 3: 0.3, 4: 0.95, 5: 0.4, 6: 0.5}
    options = {**BEST, "keep": 2, "checkpoint_every_steps": 1, "validate_every_steps": 100}
    run, *_ = trainer(tmp_path, evaluations=ScriptedEvaluations(scores), max_steps=4, **options)
    run.fit()
    assert steps_kept(tmp_path) == [1, 3, 4]
    run, *_ = trainer(tmp_path, evaluations=ScriptedEvaluations(scores), max_steps=6, **options)
    run.fit()
    assert steps_kept(tmp_path) == [4, 5, 6]


class Stopper(Recorder):
    """Stops at a step, having looked at the model."""

    def __init__(self, step):
        super().__init__()
        self._step, self.seen = step, []

    def bind(self, run):
        self.run = run

    def on_step(self, step, loss, tokens):
        assert self.run.step == step and self.run.trainer.step == step
        self.seen.append(float(np.sum(np.abs(np.asarray(self.run.model.backbone.layer_norm.scale.value)))))
        if step == self._step:
            self.run.stop("seen\nenough")
            self.run.stop("the first reason counts")


def test_a_callback_sees_the_model_and_ends_the_run(tmp_path):
    stopper = Stopper(5)
    run, *_, recorder = trainer(tmp_path, observers={"stopper": stopper})
    result = run.fit()
    assert (result.steps, result.stopped, recorder.status) == (5, "seen enough", "finished")
    assert len(set(stopper.seen)) == 5
    assert [row["step"] for row in recorder.rows if row["split"] == "validation"] == [0, 3, 5]
    assert steps_kept(tmp_path) == [4, 5]
    again, *_ = trainer(tmp_path, observers={"stopper": Stopper(6)})
    assert (again.fit().steps, again.fit().stopped) == (5, "seen enough")  # its word is in the checkpoint
    without, *_ = trainer(tmp_path)
    assert (without.fit().steps, without.fit().stopped) == (6, None)


def test_a_callback_may_end_a_run_before_its_first_step(tmp_path):
    class AtOnce(Recorder):
        def bind(self, run):
            run.stop("")

    run, *_, recorder = trainer(tmp_path, observers={"at_once": AtOnce()})
    assert (run.fit().steps, run.fit().stopped) == (0, "no reason was given")
    assert [row["step"] for row in recorder.rows] == [0]


def test_the_error_of_a_callback_names_it(tmp_path):
    class Broken:
        def on_metrics(self, row):
            raise KeyError("no such\nkey")

    run, *_ = trainer(tmp_path, observers={"mine": Broken()})
    with pytest.raises(CallbackError) as caught:
        run.fit()
    (problem,) = caught.value.problems
    assert problem.where == "trainer.callbacks.mine" and "on_metrics" in problem.what
    assert problem.found.startswith("KeyError: 'no such\\nkey' (line ") and problem.found.endswith("test_decisions.py)")


def test_one_batch_is_learned(tmp_path):
    run, *_ = trainer(tmp_path, max_steps=200, overfit_below=0.5, validate_every_steps=1000)
    run._stepping._train_step, rows = watched(run._stepping._train_step)
    result = run.fit()
    assert result.steps < 200 and result.stopped.startswith("the model can learn: its loss on one batch is 0.35")
    assert len(rows) == result.steps and all(np.array_equal(row, rows[0]) for row in rows)
    again, *_ = trainer(tmp_path, max_steps=200, overfit_below=0.5, validate_every_steps=1000)
    assert again.fit().stopped == result.stopped


def test_one_batch_that_is_not_learned_is_told(tmp_path, caplog):
    run, *_ = trainer(tmp_path, max_steps=2, overfit_below=1e-3)
    assert run.fit().stopped is None
    assert "did not learn one batch: its loss is" in caplog.text and "after 2 steps" in caplog.text


def watched(step):
    rows = []

    def call(batch):
        rows.append(batch["token_ids"].copy())
        return step(batch)

    return call, rows


def test_who_is_not_the_writer_takes_the_best_weights_too(tmp_path):
    run, backbone, *_ = trainer(tmp_path, evaluations=ScriptedEvaluations(SCORES), **BEST)
    run.fit()
    second, its_backbone, *_ = trainer(
        tmp_path, evaluations=ScriptedEvaluations(SCORES), process=Process(rank=1, size=2), **BEST
    )
    assert second.fit().exported_step == 3
    assert_same(trainable(its_backbone), trainable(backbone))


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep_best": "evaluation.a.regret"},
        {"keep_best": "train_loss"},
        {"stop_early": 5},
        {"patience": 0},
        {"min_delta": -1},
        {"overfit_below": 0},
    ],
)
def test_impossible_values(tmp_path, wrong):
    with pytest.raises(ImpossibleValue):
        trainer(tmp_path, **wrong)
