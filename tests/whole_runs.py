"""Whole runs of a tiny model: in a process of their own as a user starts them, or, ten times faster, in this one."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_exp import train_command
from llama_exp.console import logs

ROOT = Path(__file__).resolve().parents[1]
TIME_FIELDS = {"tokens_per_second", "peak_memory_bytes", "mfu", "seconds"}  # what a clock decides, not the run
HERE = "hydra/launcher=basic"  # jobs of a sweep in this process, whose frameworks run already and cannot be forked
SMALL = [
    "dataset=text_files",
    "dataset.document=paragraph",
    "dataset.sequence_length=32",
    "dataset.validation_fraction=0.2",
    "tokenizer=byte",
    "model.vocabulary_size=272",
    "model.num_layers=2",
    "model.hidden_dim=32",
    "model.intermediate_dim=64",
    "model.num_query_heads=4",
    "model.num_key_value_heads=2",
    "trainer.batch_size=4",
    "trainer.log_every_steps=1",
    "trainer.validate_every_steps=4",
    "trainer.validation_batches=2",
    "trainer.checkpoint_every_steps=3",
    "trainer.sample_tokens=8",
    "trainer.sample_prompts=[ab]",
    "optimizer.learning_rate=1e-2",
]


def last_wins(overrides):
    """The overrides without those that a later one of the same key replaces; a key may be given once."""
    return list({line.partition("=")[0]: line for line in overrides}.values())


def complete(playground, overrides, small):
    """A whole command line's arguments."""
    return last_wins([*SMALL, f"dataset.files=[{playground}/text.txt]", *overrides] if small else overrides)


def start(playground, *overrides, small=True, **environment):
    command = [sys.executable, str(ROOT / "train.py"), *complete(playground, overrides, small)]
    environment = {**os.environ, "LLAMA_EXP_CACHE": str(playground / "cache"), "PYTHONPATH": str(ROOT), **environment}
    for name in ("KERAS_BACKEND", "WANDB_SERVICE"):  # of this process: its W&B would keep a killed run
        environment.pop(name, None)
    return subprocess.Popen(
        command, cwd=playground, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(playground, *overrides, code=0, **options):
    process = start(playground, *overrides, **options)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == code, errors[-3000:]
    return output + errors


def run_here(playground, *overrides, code=0, small=True, **environment):
    """What `run` does, in this process; it leaves no trace in it."""
    arguments = complete(playground, overrides, small)
    output, umask = io.StringIO(), os.umask(0o022)
    os.umask(umask)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(playground)
        patch.setattr(sys, "argv", [str(ROOT / "train.py"), *arguments])
        environment = {"LLAMA_EXP_CACHE": str(playground / "cache"), "HYDRA_FULL_ERROR": "1", **environment}
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                train_command.main(arguments)
            found = 0
        except SystemExit as stop:
            found = stop.code
        finally:
            os.umask(umask)
            logs.detach_console()
    assert found == code, output.getvalue()[-3000:]
    return output.getvalue()


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIME_FIELDS} for line in lines]
