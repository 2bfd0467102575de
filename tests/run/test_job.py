"""Whole runs: what they leave, resume, adapters, sweeps, faults.

Those that are killed, stopped by a signal or may not see TensorFlow have a process of their own; the others run here.
"""

import csv
import dataclasses
import hashlib
import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml
from mirror import mirrored_rows, offline_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from whole_runs import HERE, ROOT, SMALL, last_wins, rows, run, run_here, start

from llama_exp.config.check import check_arguments
from llama_exp.console import logs
from llama_exp.errors import ConfigError, InputError
from llama_exp.files.process import Process
from llama_exp.run import plan
from llama_exp.run.building import _require_embeddings
from llama_exp.run.job import run_job

LORA = ["lora.rank=4", "lora.dropout=0.1", "lora.targets=[attention]"]


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """A folder to start runs in, with a text to train on and a cache that all runs share."""
    folder = tmp_path_factory.mktemp("runs")
    paragraphs = [f"{'abcdefgh'[n % 8] * 3} counts {n} and {n * n} and {n % 7}." for n in range(300)]
    (folder / "text.txt").write_text("\n\n".join(paragraphs))
    return folder


def final_state(folder):
    """Digests of the last checkpoint's tensors: weights, optimizer; and the metrics without times."""
    last = max((folder / "checkpoints").glob("step-????????"))
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in last.glob("*.safetensors")}
    assert set(digests) == {"trainable.safetensors", "optimizer.safetensors"}
    return last.name, digests, rows(folder)


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module", params=["full", "lora"])
def uninterrupted(request, playground):
    """Overrides of a run of 10 steps, and the folder of that run."""
    extra = ["trainer.max_steps=10", "trainer.accumulation_steps=2"]
    extra += LORA if request.param == "lora" else ["model.dropout=0.1"]
    folder = playground / f"straight-{request.param}"
    run_here(playground, *extra, f"hydra.run.dir={folder}")
    return extra, folder


def test_a_run_leaves_everything(uninterrupted, playground):
    overrides, folder = uninterrupted
    found = summary(folder)
    assert found["status"] == "finished" and found["exit_code"] == 0 and found["steps"] == 10
    names = {entry.name for entry in folder.iterdir()}
    result = "adapter" if "lora.rank=4" in overrides else "model"
    assert {"config.yaml", "overrides.yaml", "run.json", "train.log", "metrics.jsonl", "summary.json"} <= names
    assert {"samples.md", "loss.png", "checkpoints", "wandb", result} <= names
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["trainer"]["max_steps"] == 10 and config["tokenizer"]["_target_"].endswith("byte")
    record = json.loads((folder / "run.json").read_text())
    assert record["backend"] == "tensorflow" and record["dataset"]["train"]["fingerprint"]
    kept = sorted(entry.name for entry in (folder / "checkpoints").iterdir())
    assert kept == ["step-00000009", "step-00000010"]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    rates = [json.loads(file.read_text()) for file in (playground / "cache" / "rates").iterdir()]
    assert summary(folder)["tokens_per_second"] in [rate["tokens_per_second"] for rate in rates]


def test_no_part_of_a_run_edits_its_config(playground, monkeypatch):
    monkeypatch.chdir(playground)
    monkeypatch.setenv("LLAMA_EXP_CACHE", str(playground / "cache"))
    overrides = last_wins(
        [*SMALL, *LORA, f"dataset.files=[{playground}/text.txt]", "trainer.max_steps=2", "logger.mode=disabled"]
    )
    config = check_arguments(overrides).config
    before = dataclasses.asdict(config)
    loss = run_job(config, overrides, playground / "in-process")
    assert dataclasses.asdict(config) == before
    assert loss == pytest.approx(summary(playground / "in-process")["validation"]["last"])


def test_who_is_not_the_writer_leaves_no_file_and_says_nothing(playground, monkeypatch, capfd):
    """The same run in two processes, which are this one, one after the other."""
    monkeypatch.chdir(playground)
    monkeypatch.setenv("LLAMA_EXP_CACHE", str(playground / "cache"))
    overrides = last_wins([*SMALL, *LORA, f"dataset.files=[{playground}/text.txt]", "trainer.max_steps=2"])
    config = check_arguments(overrides).config
    expected = run_job(config, overrides, playground / "first-process")
    logs.detach_console()  # what the first process would take with it
    before = sorted(playground.iterdir())
    capfd.readouterr()
    loss = run_job(config, overrides, playground / "in-process-2", process=Process(rank=1, size=2))
    assert loss == expected
    assert sorted(playground.iterdir()) == before and capfd.readouterr() == ("", "")


def test_the_room_on_the_disk_is_estimated_from_below(uninterrupted, playground):
    overrides, folder = uninterrupted
    arguments = last_wins([*SMALL, *overrides, f"dataset.files=[{playground}/text.txt]"])
    estimate = plan.make_plan(check_arguments(arguments).config).disk_bytes
    result = folder / ("adapter" if "lora.rank=4" in overrides else "model")
    # Three checkpoints at the peak: two stay and one is written. What comes on top is headers and the tokenizer.
    for size, part in ((estimate["checkpoints"] / 3, folder / "checkpoints" / "step-00000010"),
                       (estimate[result.name], result)):  # fmt: skip
        written = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        assert 0 < size <= written < size + 100_000


def test_metrics_are_the_record(uninterrupted):
    _, folder = uninterrupted
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["step"] == 0 and lines[0]["split"] == "validation"
    train = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in train] == list(range(1, 11))
    wanted = {
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens",
        "tokens_per_second",
        "peak_memory_bytes",
        "mfu",
        "seconds",
    }
    assert wanted <= set(train[-1]) and 0 < train[-1]["mfu"] < 1
    assert [line["step"] for line in lines if line["split"] == "validation"] == [0, 4, 8, 10]
    assert train[-1]["loss"] < train[0]["loss"]


def test_only_adapters_train(uninterrupted):
    overrides, folder = uninterrupted
    if "lora.rank=4" not in overrides:
        assert "base_digest" not in summary(folder)
        return
    digests = summary(folder)["base_digest"]
    assert digests["before"] == digests["after"] and len(digests["before"]) == 64
    assert {entry.name for entry in (folder / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def kill_after(process, folder, lines):
    """Kills the process as soon as metrics.jsonl has so many lines."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def killed_and_resumed(playground, overrides, name, lines):
    """The folder of a run killed once metrics.jsonl had so many lines, then resumed by the same command."""
    overrides = [*overrides, f"name={name}", "resume=auto", "logger=[wandb,tensorboard,csv]"]
    root = playground / "outputs" / name
    process = start(playground, *overrides)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not list(root.glob("20*/metrics.jsonl")):
        time.sleep(0.01)
    folder = next(root.glob("20*/metrics.jsonl")).parent
    kill_after(process, folder, lines)
    assert summary(folder)["status"] == "running"
    run_here(playground, *overrides)  # without naming a folder: resume=auto finds it
    assert sorted(entry.name for entry in root.iterdir()) == [folder.name, "latest"]
    assert summary(folder)["status"] == "finished"
    assert len(json.loads((folder / "run.json").read_text())["starts"]) == 2
    assert_mirrored(folder)
    return folder


def assert_mirrored(folder):
    """Each logger has every step of the record once, over all starts."""
    steps = sorted({row["step"] for row in rows(folder)})
    with (folder / "metrics.csv").open(newline="") as file:
        assert [int(line["step"]) for line in csv.DictReader(file)] == steps
    assert sorted(mirrored_rows(offline_run(folder).history)) == steps
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == steps[1:]
    assert json.loads((folder / "run.json").read_text())["logger"]["logger"]["run_id"] == offline_run(folder).run_id


@pytest.mark.process
def test_a_killed_run_ends_with_the_same_bits(uninterrupted, playground):
    overrides, straight = uninterrupted
    lines = random.SystemRandom().randint(1, 12)  # of 14: before the first checkpoint, between two, after the last
    kind = "lora" if "lora.rank=4" in overrides else "full"
    folder = killed_and_resumed(playground, overrides, f"killed-{kind}", lines)
    assert final_state(folder) == final_state(straight), f"killed after {lines} lines"


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("lines", range(1, 13))
def test_killed_anywhere_it_ends_with_the_same_bits(uninterrupted, playground, lines):
    overrides, straight = uninterrupted
    kind = "lora" if "lora.rank=4" in overrides else "full"
    folder = killed_and_resumed(playground, overrides, f"series-{kind}-{lines}", lines)
    assert final_state(folder) == final_state(straight)


@pytest.mark.process
def test_sigterm_leaves_a_checkpoint_and_code_75(playground):
    folder = playground / "terminated"
    overrides = ["trainer.max_steps=3000", "trainer.checkpoint_every_steps=3000", f"hydra.run.dir={folder}"]
    process = start(playground, *overrides)
    while process.poll() is None and (
        not (folder / "metrics.jsonl").exists() or len((folder / "metrics.jsonl").read_text().splitlines()) < 5
    ):
        time.sleep(0.01)
    process.terminate()
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 75, errors[-2000:]
    assert summary(folder)["status"] == "preempted"
    assert len(list((folder / "checkpoints").glob("step-????????"))) == 1
    assert "resume=auto" in errors


def test_a_sweep_gives_one_folder_per_job(playground):
    output = run_here(playground, "-m", "lora.rank=2,4", "trainer.max_steps=2", "hydra.sweep.dir=sweep", HERE)
    folders = sorted(path.parent for path in (playground / "sweep").glob("*/summary.json"))
    assert [summary(folder)["status"] for folder in folders] == ["finished", "finished"], output[-2000:]
    ranks = [yaml.safe_load((folder / "config.yaml").read_text())["lora"]["rank"] for folder in folders]
    assert ranks == [2, 4]
    configs = [json.loads((folder / "adapter" / "adapter_config.json").read_text()) for folder in folders]
    assert [config["r"] for config in configs] == [2, 4]


def test_a_failing_job_of_a_sweep_does_not_stop_the_others(playground):
    rates = "optimizer.learning_rate=1e30,1e-3"
    output = run_here(playground, "-m", rates, "trainer.max_steps=4", "hydra.sweep.dir=bad", HERE, code=7)
    folders = sorted(path.parent for path in (playground / "bad").glob("*/summary.json"))
    assert [summary(folder)["status"] for folder in folders] == ["failed", "finished"], output[-2000:]
    assert summary(folders[0])["exit_code"] == 5
    for checkpoint in (folders[0] / "checkpoints").glob("step-*"):
        assert "tmp" not in checkpoint.name


ABSENT = """
import importlib.abc, importlib.util, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == 'tensorflow' or name.startswith('tensorflow.'):
            raise ModuleNotFoundError(name, name='tensorflow')
sys.meta_path.insert(0, Blocker())
find = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name == 'tensorflow' else find(name, package)
importlib.util.find_spec = find_spec
"""
# Found by whoever looks for it; whoever runs it gets an error that no `except ImportError` hides.
REFUSED = """
import importlib.machinery, sys
class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == 'tensorflow':
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
            spec.loader = cls
            return spec
    @staticmethod
    def create_module(spec):
        raise RuntimeError('tensorflow is imported')
    @staticmethod
    def exec_module(module):
        pass
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.process
@pytest.mark.parametrize(
    "tensorflow", [ABSENT, pytest.param(REFUSED, marks=pytest.mark.slow)], ids=["absent", "refused"]
)
def test_a_run_on_jax_imports_no_tensorflow(playground, tmp_path, tensorflow):
    """Where only JAX is installed, and where both are and importing the other would be a mistake."""
    (tmp_path / "sitecustomize.py").write_text(tensorflow)
    folder, path = tmp_path / "jax", f"{tmp_path}{os.pathsep}{ROOT}"
    overrides = ["runtime.backend=jax", "trainer.max_steps=2", f"hydra.run.dir={folder}"]
    if tensorflow is REFUSED:  # what else could bring it: dropout, loss scaling, small types, adapters
        overrides += ["precision=mixed_float16", "quantization=int4", *LORA, "trainer.accumulation_steps=2"]
    run(playground, *overrides, PYTHONPATH=path, LLAMA_EXP_CACHE=str(playground / "jax-cache"))
    assert summary(folder)["status"] == "finished"
    assert json.loads((folder / "run.json").read_text())["backend"] == "jax"


def test_a_preset_that_cannot_be_had_is_told_at_once(playground):
    began = time.monotonic()
    offline = {"KAGGLEHUB_CACHE": str(playground / "kagglehub"), "KAGGLE_API_ENVIRONMENT": "LOCALHOST"}
    output = run_here(playground, "model=llama2_7b", "lora.rank=8", small=False, code=3, **offline)
    assert time.monotonic() - began < 20
    for words in ("llama2_7b_en", "preset.source=<folder>", "KAGGLE_KEY", "KAGGLEHUB_CACHE", "preset=none"):
        assert words in output
    assert "Traceback" not in output


def test_the_run_folder_is_named_after_time_and_configuration(playground):
    run_here(playground, "trainer.max_steps=1", "name=named")
    (folder,) = (path for path in (playground / "outputs" / "named").iterdir() if not path.is_symlink())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{8}", folder.name)
    assert json.loads((folder / "run.json").read_text())["config_hash"].startswith(folder.name[-8:])
    assert os.readlink(playground / "outputs" / "named" / "latest") == folder.name
    missing = ["dataset=text_files", "dataset.files=[nowhere/*.txt]", "tokenizer=byte"]
    run_here(playground, *missing, "name=named", small=False, code=3)
    assert os.readlink(playground / "outputs" / "named" / "latest") == folder.name  # a start without data is no run


def test_a_run_s_model_is_the_preset_of_the_next(uninterrupted, playground):
    """Trains adapters on the model that the first run left; naming its folder is enough."""
    overrides, first = uninterrupted
    if "lora.rank=4" in overrides:
        pytest.skip("that run leaves an adapter")
    folder = playground / "adapted"
    run_here(
        playground,
        "model.dropout=0.1",
        f"preset.source={first}/model",
        *LORA,
        "trainer.max_steps=2",
        f"hydra.run.dir={folder}",
    )
    assert rows(folder)[0]["loss"] == pytest.approx(rows(first)[-1]["loss"], rel=1e-5)
    output = run_here(playground, f"preset.source={first}/model", "model.num_layers=3", code=2)
    assert "num_layers" in output and "Traceback" not in output


def test_a_run_goes_on_from_a_checkpoint_that_is_named(uninterrupted, playground):
    overrides, straight = uninterrupted
    folder = playground / f"{straight.name}-again"
    shutil.copytree(straight, folder)
    run_here(playground, *overrides, f"resume={folder}/checkpoints/step-00000009")
    assert final_state(folder) == final_state(straight)
    assert (folder / "checkpoints" / "step-00000010.abandoned-1").is_dir()
    output = run_here(playground, *overrides, "optimizer.weight_decay=0.5", f"resume={folder}", code=2)
    assert "optimizer.weight_decay" in output and "begun with 0.1" in output


def test_every_token_has_an_embedding():
    """Whether the user or the preset has to change decides the exit code."""
    config = check_arguments(["model.vocabulary_size=272", "tokenizer=byte"]).config
    _require_embeddings(config, 272, None)
    with pytest.raises(ConfigError, match=r"model\.vocabulary_size.*\n.*272, the tokenizer has 273\n.*at least 273"):
        _require_embeddings(config, 273, None)
    with pytest.raises(InputError, match=r"273 \(preset: there\)\n.*another tokenizer, or another preset"):
        _require_embeddings(config, 273, Path("there"))
