"""`llama-exp verify invariances` and `verify resume`: a right build passes, a broken one is caught and named."""

import os
import subprocess
import sys

import numpy as np
import pytest
from keras import ops
from whole_runs import ROOT, SMALL, last_wins

from llama_exp import cli
from llama_exp.config.check import check_arguments
from llama_exp.console import logs
from llama_exp.models import backbone as backbone_module
from llama_exp.trainer.probe import Measured
from llama_exp.trainer.step import TrainStep
from llama_exp.verification import invariances, other_backend, resumption
from llama_exp.verification.bench import Bench, compare
from llama_exp.verification.subject import build_subject

LORA = ["lora.rank=4", "lora.dropout=0.1", "lora.targets=[attention]", "model.num_layers=1"]


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """A folder with a text to train on and a cache."""
    folder = tmp_path_factory.mktemp("verify")
    paragraphs = [f"text {n} is {n * n} long" + " and on" * (n % 9) for n in range(200)]
    (folder / "text.txt").write_text("\n\n".join(paragraphs))
    return folder


@pytest.fixture
def verify(playground, monkeypatch, capsys):
    """Runs a command line of `llama-exp verify` on the playground's text: its exit code and what it printed."""

    def call(*arguments, code=0):
        backend = os.environ["KERAS_BACKEND"]
        check, *rest = arguments
        options = [argument for argument in rest if argument.startswith("-")]
        overrides = [argument for argument in rest if not argument.startswith("-")]
        small = [*SMALL, f"dataset.files=[{playground}/text.txt]", f"runtime.backend={backend}", *overrides]
        monkeypatch.chdir(playground)
        monkeypatch.setenv("LLAMA_EXP_CACHE", str(playground / "cache"))
        with pytest.raises(SystemExit) as stop:
            cli.main(["verify", check, *options, *last_wins(small)])
        logs.detach_console()
        output = capsys.readouterr()
        assert stop.value.code == code, output.err[-3000:] + output.out
        return output.out + output.err

    return call


def test_a_right_build_agrees_with_itself(verify):
    output = verify("invariances", "--only=packing,padding", *LORA)
    assert "2 of 2 checks agree" in output and "skipped" not in output


@pytest.mark.slow
@pytest.mark.parametrize("extra", [[], LORA, ["precision=mixed_bfloat16"]], ids=["full", "lora", "bfloat16"])
def test_every_check_agrees_on_a_right_build(verify, extra):
    output = verify("invariances", *extra)
    assert "9 of 9 checks agree" in output and "skipped" not in output


@pytest.fixture(scope="module")
def bench(playground):
    """A model of one layer, whose step is compiled once for all of the tests below."""
    arguments = last_wins([*SMALL, f"dataset.files=[{playground}/text.txt]", "model.num_layers=1"])
    arguments += [f"runtime.cache_dir={playground}/cache", f"runtime.backend={os.environ['KERAS_BACKEND']}"]
    return invariances.open_bench(build_subject(check_arguments(arguments).config, lambda phase: None))


def outcome(bench, name):
    """What a check finds, with everything compiled anew; and whether it is right."""
    fresh = Bench(bench.subject, bench.jit)
    found = invariances.run(name, fresh, fresh.measure(bench.subject.rows), [])
    return found, invariances.is_right(found, invariances.tolerances_of(bench.backbone))


def test_decoding_is_compared_by_its_logits(bench):
    found, is_right = outcome(bench, "decoding")
    assert is_right and found.error.variable == "logits" and found.error.gradient == 0.0


@pytest.mark.neutral
def test_a_model_that_sees_other_documents_fails_by_packing_alone(bench, monkeypatch):
    right = backbone_module.attention_bias

    def wrong(*sizes, segment_ids=None, **more):
        return right(*sizes, **more)

    monkeypatch.setattr(backbone_module, "attention_bias", wrong)
    found, is_right = outcome(bench, "packing")
    assert not is_right and found.error.gradient > 1e-2
    assert outcome(bench, "batch order")[1]


def test_a_mean_of_means_fails_by_accumulation(bench, monkeypatch):
    """Each micro-batch divided by its own count: the mistake of many trainers until 2024."""

    def wrong(step, batch, factor):
        number = batch["labels"].shape[0]
        count = ops.sum(batch["loss_mask"], axis=(1, 2))
        parts = [step._micro_step({k: v[n] for k, v in batch.items()}, 1.0 / count[n]) for n in range(number)]
        mean = [sum(gradients) / number for gradients in zip(*(part[1] for part in parts), strict=True)]
        return sum(part[0] for part in parts) / number, mean

    monkeypatch.setattr(TrainStep, "_accumulate", wrong)
    found, is_right = outcome(bench, "accumulation")
    assert not is_right and "rows" in found.way


def test_what_is_not_finite_is_wrong(bench):
    measured = bench.measure(bench.subject.rows)
    path = next(iter(measured.gradients))
    broken = Measured(measured.loss, measured.gradients | {path: np.full_like(measured.gradients[path], np.nan)})
    error = compare(broken, measured)
    assert error.variable == path
    assert not invariances.is_right(invariances.Outcome("x", "y", error), (1e9, 1e9))
    same = compare(measured, measured)
    assert (same.loss, same.gradient) == (0.0, 0.0)


def test_a_step_leaves_the_weights_alone(bench):
    before = [np.array(variable) for variable in bench.backbone.trainable_variables]
    bench.measure(bench.subject.rows)
    for variable, array in zip(bench.backbone.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), array)


def test_the_first_that_fails_is_named(verify, monkeypatch):
    monkeypatch.setitem(invariances.TOLERANCES, "float32", (0.0, 1e-30))
    output = verify("invariances", "--only=batch_order,padding", "model.num_layers=1", code=1)
    assert "batch order is the first that fails (rows backwards)" in output and "tolerance" in output


def test_a_backend_that_is_not_there_is_skipped_and_said(verify, monkeypatch):
    monkeypatch.setattr(other_backend, "find_obstacle", lambda name: f"{name} is not installed: install it")
    output = verify("invariances", "--only=backend", "model.num_layers=1")
    assert "is not installed: install it" in output and "0 of 1 checks agree" in output


# --- resume


@pytest.mark.process
def test_a_run_that_was_stopped_is_bit_identical(playground):
    lines = [*SMALL, *LORA, "trainer.max_steps=9", "trainer.accumulation_steps=2", "trainer.batch_size=2"]
    lines += [f"dataset.files=[{playground}/text.txt]", "runtime.backend=jax"]
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    environment |= {"LLAMA_EXP_CACHE": str(playground / "cache"), "PYTHONPATH": str(ROOT), "TMPDIR": str(playground)}
    command = [sys.executable, "-m", "llama_exp", "verify", "resume", *last_wins(lines)]
    done = subprocess.run(command, cwd=playground, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("bit-identical: stopped at step 2 and continued to step 4, ")
    assert done.stdout.count("\n") == 1 and not list(playground.glob("llama_exp-*"))


def test_what_differs_is_said():
    one = {"trainable": {"a": np.arange(3.0), "b": np.zeros(2)}, "optimizer": {"m": np.ones(1)}}
    other = {"trainable": {"a": np.arange(3.0) + [0, 0, 0.5], "b": np.zeros(3)}, "optimizer": {}}
    assert list(resumption.find_other_arrays(one, one)) == []
    assert list(resumption.find_other_arrays(one, other)) == [
        "optimizer: m is in one run alone",
        "trainable: a: 1 of 3 numbers differ, by at most 0.5",
        "trainable: b: float64(3,), without a stop float64(2,)",
    ]
    assert list(resumption.find_other_arrays({"x": {"y": np.array([-0.0])}}, {"x": {"y": np.array([0.0])}}))
    rows = [{"step": 1, "split": "train", "loss": 2.0}, {"step": 2, "split": "train", "loss": 1.0}]
    assert list(resumption.find_other_rows(rows, rows)) == []
    assert list(resumption.find_other_rows(rows, rows[:1])) == ["metrics: 1 rows, without a stop 2"]
    changed = [rows[0], rows[1] | {"loss": 1.5}]
    assert list(resumption.find_other_rows(rows, changed)) == ["metrics of step 2, train: loss 1.5, without a stop 1.0"]
    assert list(resumption.find_other_values({"a": 1}, {"a": 2})) == ["a: 2, without a stop 1"]


# --- usage


def test_what_is_wrong_is_told_before_anything_is_built(verify):
    assert "did you mean lora.rank" in verify("invariances", "lora.rnk=1", code=2)
    assert "did you mean lora.rank" in verify("resume", "lora.rnk=1", code=2)
    for check in ("invariances", "resume"):
        assert "one run" in verify(check, "-m", "lora.rank=4,8", code=2)
    output = verify("invariances", "--only=packng", code=2)
    assert "packng" in output and "batch_order" in output
    assert "give at least 3" in verify("resume", "trainer.max_steps=2", code=2)
    assert "nowhere" in verify("invariances", "dataset.files=[nowhere.txt]", code=3)
    assert "usage: llama-exp verify invariances" in verify("invariances", "--help")
    assert "usage: llama-exp verify resume" in verify("resume", "--help")
