import json

import pytest
from hydra import compose, initialize_config_dir

from llama_exp import runtime
from llama_exp.config.check import CONF, resolvers
from llama_exp.run.sweep_app import LlamaApp, list_modules
from llama_exp.sweeps.jobs import Glimpse, State


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text("objective_metric: validation.loss\ntrainer: {max_steps: 40}\n")
    return tmp_path


def write_rows(folder, *rows, end="\n"):
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + end)


def row(step, split="train", **figures):
    return {"step": step, "split": split, "loss": 2.5, "tokens": 100 * step, **figures}


def test_how_far_a_run_is(folder):
    write_rows(folder, row(0, "validation"), row(10, tokens_per_second=50.0), row(20, "validation", loss=2.0))
    glimpse = LlamaApp().look(folder)
    assert glimpse == Glimpse(None, 20, 40, 2.5, 2.0, 50.0, seconds_left=40.0)


def test_a_run_that_has_no_row_yet_starts(folder):
    assert LlamaApp().look(folder) == Glimpse(phase="starting")
    write_rows(folder, row(0, "validation"), end="")  # the row is being written
    assert LlamaApp().look(folder) == Glimpse(phase="starting")


def test_only_the_end_of_a_long_file_is_read(folder):
    write_rows(folder, *(row(step, tokens_per_second=None, note="x" * 90) for step in range(2000)))
    assert LlamaApp().look(folder).step == 1999


@pytest.mark.parametrize("text", ["[]\n", "nothing\n", '{"step": "x", "split": "train"}\n', '{"step": 3}\n', "\xff\n"])
def test_looking_never_raises(folder, text):
    (folder / "metrics.jsonl").write_text(text, encoding="latin-1")
    assert isinstance(LlamaApp().look(folder), Glimpse)
    assert isinstance(LlamaApp().look(folder / "none"), Glimpse)


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({"status": "running"}, None),
        ({"status": "finished", "exit_code": 0, "validation": {"loss": 2.5}}, (State.finished, None, 0, 2.5)),
        ({"status": "finished", "exit_code": 0}, (State.finished, None, 0, None)),
        ({"status": "failed", "exit_code": 3, "reason": "no data\nmore"}, (State.failed, "no data", 3, None)),
        ({"status": "preempted", "exit_code": 75, "reason": "SIGTERM"}, (State.preempted, "SIGTERM", 75, None)),
    ],
)
def test_how_a_run_ended(folder, summary, expected):
    (folder / "summary.json").write_text(json.dumps(summary))
    outcome = LlamaApp().find_outcome(folder)
    found = outcome and (outcome.state, outcome.cause, outcome.exit_code, outcome.value)
    assert found == expected and LlamaApp().find_outcome(folder / "none") is None


def test_the_value_of_a_run_is_its_objective(folder):
    """A sweep that lost its journal's last line takes it from the run's own record."""
    summary = {"status": "finished", "validation": {"loss": 2.5}, "evaluation": {"a.b": {"accuracy": 0.75}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    for figure, value in (("evaluation.a.b.accuracy", 0.75), ("evaluation.a.b.accuracy:max", 0.75), ("nothing", None)):
        (folder / "config.yaml").write_text(f"objective_metric: {figure}\n")
        assert LlamaApp().find_outcome(folder).value == value
    (folder / "config.yaml").unlink()
    assert LlamaApp().find_outcome(folder).value is None


def composed(*overrides):
    resolvers.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


def test_what_a_run_needs(monkeypatch):
    for name in ("TF_CPP_MIN_LOG_LEVEL", runtime.JAX_CACHE_FOLDER):
        monkeypatch.delenv(name, raising=False)
    shared = LlamaApp().find_needs(composed(), cores=3)
    own = LlamaApp().find_needs(composed("runtime.backend=jax", "runtime.threads=2"), cores=3)
    threads = [{needs.environment[name] for name in runtime.THREAD_VARIABLES} for needs in (shared, own)]
    assert threads == [{"3"}, {"2"}]
    assert [needs.environment["KERAS_BACKEND"] for needs in (shared, own)] == ["tensorflow", "jax"]
    assert runtime.JAX_CACHE_FOLDER in own.environment and runtime.JAX_CACHE_FOLDER not in shared.environment
    larger = LlamaApp().find_needs(composed("model=llama_110m"), cores=3)
    assert shared.memory_bytes and larger.memory_bytes > shared.memory_bytes + 4 * 110_000_000 * 4


def test_variables_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.setenv(runtime.JAX_CACHE_FOLDER, "")
    found = runtime.find_environment("jax", 1, "unused")
    assert not {"TF_CPP_MIN_LOG_LEVEL", *runtime.JAX_CACHE_LIMITS, runtime.JAX_CACHE_FOLDER} & found.keys()


def test_the_identity_is_the_experiments_and_the_record_is_whole():
    identity, record = LlamaApp().identify(composed("lora.rank=8"))
    assert identity != LlamaApp().identify(composed("lora.rank=4"))[0]
    assert record["lora.rank"] == 8 and record["runtime.backend"] == "tensorflow"
    assert not any(key.startswith("hydra") for key in record)


def test_every_module_is_listed():
    names = set(list_modules())
    assert {"llama_exp.run.job", "llama_exp.trainer.loop", "llama_exp.signals"} <= names
    assert not any(name.startswith("llama_exp.backend._") for name in names)
