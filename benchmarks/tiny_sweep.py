"""Sweeps of a tiny model, as `faults.py` and `sweep.py` start them: their command, their folders, what they leave."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    *("dataset=text_files", "dataset.document=paragraph", "dataset.sequence_length=32"),
    *("dataset.validation_fraction=0.2", "tokenizer=byte", "model.vocabulary_size=272", "model.num_layers=1"),
    *("model.hidden_dim=16", "model.intermediate_dim=16", "model.num_query_heads=2", "model.num_key_value_heads=1"),
    *("trainer.batch_size=4", "trainer.log_every_steps=1", "trainer.validate_every_steps=4"),
    *("trainer.validation_batches=1", "trainer.checkpoint_every_steps=3", "trainer.sample_prompts=[]"),
    "logger.mode=disabled",
]
CLOCK = ("tokens_per_second", "peak_memory_bytes", "mfu", "seconds")  # of a row: what a clock decides, not the run


def write_text(folder: Path) -> None:
    """The data of all sweeps in `folder`."""
    lines = [f"{'abcdefgh'[number % 8] * 3} counts {number} and {number * number}." for number in range(300)]
    (folder / "text.txt").write_text("\n\n".join(lines))


def command(folder: Path, backend: str, steps: int, *overrides: str) -> list[str]:
    """`python train.py` on the text in `folder`."""
    common = [f"dataset.files=[{folder}/text.txt]", f"runtime.backend={backend}", f"trainer.max_steps={steps}"]
    return [sys.executable, str(ROOT / "train.py"), *SMALL, *common, *overrides]


def start(words: list[str], folder: Path, output: Path) -> subprocess.Popen:
    """Starts a command in `folder` as the leader of a process group; what it prints is added to `output`."""
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    environment |= {"LLAMA_EXP_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
    with open(output, "ab") as file:
        where = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
        return subprocess.Popen(words, cwd=folder, env=environment, start_new_session=True, **where)


def run(words: list[str], folder: Path, output: Path) -> int:
    """Runs a command to its end; returns its exit code."""
    return start(words, folder, output).wait()


def read_events(sweep: Path) -> list[dict]:
    """The whole lines of a sweep's journal."""
    path = sweep / "sweep.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    events = []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:  # cut short by a kill
            continue
    return events


def list_jobs(sweep: Path) -> list[Path]:
    """The folders of a sweep's jobs, by number."""
    folders = [path for path in sweep.glob("[0-9]*") if path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name.split("_")[0]))


def find_status(job: Path) -> str | None:
    """What a job's folder says of its end."""
    try:
        return json.loads((job / "summary.json").read_text())["status"]
    except (FileNotFoundError, ValueError):
        return None


def digest_files(paths: Iterable[Path]) -> dict[str, str]:
    """A digest of each file by its path."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}


def digest_result(job: Path) -> Mapping[str, str]:
    """Digests of what a finished job computed: tensors of the last checkpoint, exported weights, rows without times."""
    last = max((job / "checkpoints").glob("step-????????"))
    weights = [path for path in job.glob("*/*") if path.suffix in (".h5", ".safetensors")]
    found = digest_files([*sorted(last.glob("*.safetensors")), *sorted(weights)])
    rows = [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]
    found["rows"] = hashlib.sha256(json.dumps(kept).encode()).hexdigest()
    return {path.removeprefix(str(job)): digest for path, digest in found.items()}
