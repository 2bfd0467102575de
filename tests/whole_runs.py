"""Whole runs of a tiny model, each in a process of its own as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIME_FIELDS = {"tokens_per_second", "peak_memory_bytes", "mfu", "seconds"}  # what a clock decides, not the run
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


def start(playground, *overrides, small=True, **environment):
    command = [sys.executable, str(ROOT / "train.py"), *(SMALL if small else []), *overrides]
    command += [f"dataset.files=[{playground}/text.txt]"] if small else []
    environment = {**os.environ, "LLAMA_EXP_CACHE": str(playground / "cache"), "PYTHONPATH": str(ROOT), **environment}
    environment.pop("KERAS_BACKEND", None)
    return subprocess.Popen(
        command, cwd=playground, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(playground, *overrides, code=0, **options):
    process = start(playground, *overrides, **options)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == code, errors[-3000:]
    return output + errors


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIME_FIELDS} for line in lines]
