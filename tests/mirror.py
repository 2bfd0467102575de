"""A short run told to the record and to its W&B mirror, and both read back: for the tests of the mirror."""

import os
import sys
import time

import pytest
import wandb_reader

from llama_exp.config.identity import flatten
from llama_exp.files.metrics_file import MetricsFile, read_metrics
from llama_exp.logger import WandbLogger

CONFIG = {
    "name": "x",
    "lora": {"rank": 8, "targets": ["query", "value"]},
    "optimizer": {"learning_rate": 3e-4},
    "hub": {"token": "canary-config"},
    "empty": {},
}


def make(folder, mode="offline", **more):
    arguments = {
        "project": "proj",
        "entity": None,
        "tags": ["a", "b"],
        "log_model": False,
        "name": "the-run",
        "group": "sweep",
        "config": flatten(CONFIG),
    }
    return WandbLogger(mode, folder=folder, **{**arguments, **more})


def row(step, split="train", loss=None):
    loss = 5.0 / (1 + step) if loss is None else loss
    return {"step": step, "split": split, "loss": loss, "tokens": step * 64, "mfu": None, "seconds": 0.5 * step}


def observers(folder, mode="offline", **more):
    folder.mkdir(exist_ok=True)
    return [MetricsFile(folder / "metrics.jsonl"), make(folder, mode, **more)]


def report(watching, steps):
    for step in steps:
        if step:
            for observer in watching:
                observer.on_metrics(row(step))
        if step % 4 == 0:
            for observer in watching:
                observer.on_metrics(row(step, "validation", 3.0))
                if hasattr(observer, "on_sample"):
                    observer.on_sample(step, "The <zip>", "The <zip> function")


def finish(watching, status="finished"):
    for observer in watching:
        observer.on_finish(status)


def expected_rows(folder):
    """metrics.jsonl as W&B rows: one per step."""
    steps = {}
    for entry in read_metrics(folder / "metrics.jsonl"):
        figures = {key: value for key, value in entry.items() if key not in ("step", "split") and value is not None}
        steps.setdefault(entry["step"], {}).update({f"{entry['split']}/{key}": value for key, value in figures.items()})
    return steps


def mirrored_rows(history):
    """W&B rows without W&B's own entries, by step; fails if a step occurs twice or out of order."""
    assert [entry["_step"] for entry in history] == sorted({entry["_step"] for entry in history})
    return {
        entry["_step"]: {key: value for key, value in entry.items() if key.startswith(("train/", "validation/"))}
        for entry in history
    }


def offline_run(folder, finished=True):
    """The W&B run in a run folder. W&B's service may write the end of a finished one after `finish()` returned."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    deadline = time.monotonic() + 20
    while (found := wandb_reader.read(run)).exit_code is None and finished and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.fixture(autouse=True)
def own_wandb(tmp_path, monkeypatch):
    """Each test has a W&B service and a home of its own, whatever earlier tests of other files set up."""
    _end_service()
    for name in [name for name in os.environ if name.startswith("WANDB_") or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    yield
    _end_service()


def _end_service():
    if (wandb := sys.modules.get("wandb")) is not None:
        wandb.teardown()
