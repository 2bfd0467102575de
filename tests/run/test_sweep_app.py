import ast
import json
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from llama_exp import runtime
from llama_exp.config.check import CONF, resolvers
from llama_exp.run.sweep_app import OF_EXTRAS, LlamaApp, import_if_possible, list_modules
from llama_exp.sweeps.jobs import Glimpse, State

ROOT = Path(__file__).resolve().parents[2]


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


def test_a_sweep_needs_no_extra(monkeypatch):
    """Whoever installed none of them has sweeps too: what needs one is left to the job that uses it."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OF_EXTRAS]:
        monkeypatch.delitem(sys.modules, name)
    for name in OF_EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)
    needing = [name for name in list_modules() if reads_extra(name)]
    assert {"llama_exp.sweeps.search.study", "llama_exp.evaluation.harness_model"} <= set(needing)
    for name in needing:
        monkeypatch.delitem(sys.modules, name, raising=False)
        import_if_possible(name)


def reads_extra(name):
    """Whether a module of this package names a package of an extra in an import of its own."""
    path = ROOT.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    lines = path.read_text().splitlines()
    return any(line.startswith((f"import {extra}", f"from {extra}")) for line in lines for extra in OF_EXTRAS)


def test_modules_import_packages_of_no_other_extra():
    """`OF_EXTRAS` names those that stand at the top of a module; all others are imported where they are used."""
    of_extras = {"cmaes", "hydra_plugins", "joblib", "mlflow", "pandas", "ray", "submitit", "tensorboard", *OF_EXTRAS}
    found = {
        name
        for path in (ROOT / "llama_exp").rglob("*.py")
        for node in ast.parse(path.read_text()).body
        for name in named_by(node)
    }
    assert found & of_extras == set(OF_EXTRAS)


def named_by(node):
    if isinstance(node, ast.ImportFrom):
        return [str(node.module).partition(".")[0]]
    return [alias.name.partition(".")[0] for alias in node.names] if isinstance(node, ast.Import) else []


def test_a_module_that_lacks_anything_else_is_told():
    with pytest.raises(ModuleNotFoundError):
        import_if_possible("llama_exp.no_such_module")
