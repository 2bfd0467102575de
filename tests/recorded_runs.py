"""Made-up run folders for those who compare runs."""

import json

import yaml

CONFIG = {
    "name": "default",
    "seed": 0,
    "runtime": {"backend": "jax", "threads": 0},
    "precision": {"policy": "float32"},
    "quantization": {"mode": "none"},
    "trainer": {"max_steps": 20},
    "logger": {},
    "recipe": {"rows": {"version": 1}},
}
RECORD = {
    "starts": [{"time": "2026-01-01", "host": "here"}],
    "working_folder": "/somewhere/else",
    "host": "here",
    "git": {"commit": "a" * 40, "branch": "main", "dirty": False},
    "packages": {"numpy": "2.1", "rich": "14.0", "PyYAML": "6.0", "absent": None},
    "python": "3.12.1",
    "cpu": "A",
    "instructions": ["avx2", "fma"],
    "cores": 2,
    "environment": {"XLA_FLAGS": "", "TF_NUM_INTRAOP_THREADS": "2"},
    "backend": "jax",
    "device": "cpu",
    "threads": 2,
    "jit": True,
    "dataset": {"train": {"fingerprint": "f" * 64, "rows": 10}},
    "tokenizer": {"fingerprint": "e" * 64},
    "preset": {"source": None, "path": None, "revision": None, "digest": None},
}
SOURCES = {"models/norm.py": "0" * 16, "console/live.py": "1" * 16}


def row(step, loss, split="train", **more):
    return {"step": step, "split": split, "loss": loss, "tokens": step * 8, "seconds": step * 0.1 + loss, **more}


ROWS = [row(0, 5.0, "validation"), row(10, 4.0), row(20, 3.0), row(20, 3.5, "validation")]


def make_recorded(folder, config=None, record=None, rows=ROWS, sources=SOURCES, patch=None, samples="", **summary):
    """A run folder; `config` and `record` are changes of those above, by section."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(_merged(CONFIG, config or {})))
    (folder / "run.json").write_text(json.dumps(_merged(RECORD, record or {})))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    (folder / "summary.json").write_text(json.dumps({"status": "finished", "steps": 20, **summary}))
    (folder / "samples.md").write_text(samples)
    if sources is not None:
        (folder / "sources.json").write_text(json.dumps(sources))
    if patch is not None:
        (folder / "git.diff").write_text(patch)
    return folder


def _merged(node, changes):
    if not (isinstance(node, dict) and isinstance(changes, dict)):
        return changes
    return {**node, **{key: _merged(node.get(key), value) for key, value in changes.items()}}
