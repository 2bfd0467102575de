"""Run folders as a training leaves them, made up: configs, records and metrics without a step of training."""

import json
import math

import yaml

from llama_exp.sweeps.record import Entry, Record

TOKENS_PER_STEP = 1024
MODEL = {
    "_target_": "llama_exp.models.LlamaBackbone",
    "vocabulary_size": 512,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 64,
    "intermediate_dim": 128,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
LORA = {"rank": 8, "alpha": 16.0, "targets": ["all-linear"], "source": None, "rank_pattern": {}}
PACKAGES = {"llama_exp": "0.1.0", "keras": "3.15.1", "jax": "0.10.2", "numpy": "2.4.6"}


def make_config(seed=0, rank=8, rate=1e-3, **sections):
    """A config of nested sections; `trainer={"max_steps": 40}` adds to a section, other values replace it."""
    config = {
        "name": "made",
        "seed": seed,
        "resume": "none",
        "runtime": {"backend": "jax"},
        "dataset": {"_target_": "llama_exp.dataset.PythonDocs", "sequence_length": 128},
        "preset": {"source": None, "offline": False},
        "model": dict(MODEL),
        "lora": {**LORA, "rank": rank},
        "optimizer": {"learning_rate": rate},
        "trainer": {"max_steps": 40, "batch_size": 8},
        "logger": None,
        "recipe": {"example_order": {"version": 1}},
    }
    for name, section in sections.items():
        config[name] = {**config[name], **section} if isinstance(section, dict) and name in config else section
    return config


def make_run(folder, config=None, loss=2.5, status="finished", curve=(4.0, 3.0), summary=None, **record):
    """A run that ended with a validation loss; None: its summary has none."""
    config = config or make_config()
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True, sort_keys=False), encoding="utf-8")
    command = f"python train.py lora.rank={config['lora']['rank']} seed={config['seed']}"
    fingerprints = {split: {"fingerprint": f"{'ab' * 32}-{split}"} for split in ("train", "validation")}
    facts = {
        "config_hash": "a" * 64,
        "command": command,
        "working_folder": "/somewhere",
        "starts": [{"time": "2026-01-01T00:00:00+00:00", "command": command, "host": "vm"}],
        "packages": PACKAGES,
        "python": "3.11.7",
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "device": "made-up processor",
        "cores": 2,
        "threads": 1,
        "memory_bytes": 2**34,
        "backend": "jax",
        "dataset": fingerprints,
        "tokenizer": {"fingerprint": "cd" * 32},
    }
    (folder / "run.json").write_text(json.dumps({**facts, **record}))
    write_rows(folder, [*curve, loss])
    if status != "killed":
        (folder / "summary.json").write_text(json.dumps(_summary(status, loss, len(curve) + 1, summary or {})))
    return folder


def write_rows(folder, losses):
    rows = [{"step": 10 * n, "split": "validation", "loss": _json(loss)} for n, loss in enumerate(losses) if loss]
    rows += [
        {
            "step": 10 * n,
            "split": "train",
            "loss": 0.9 * losses[0] / n,
            "tokens": 10 * n * TOKENS_PER_STEP,
            "seconds": 2.0 * n,
        }
        for n in range(1, len(losses))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_grid(folder, losses, events=None, sections=None, **extra):
    """A sweep of ranks, rates and seeds.

    Args:
        folder: of the sweep.
        losses: (rank, rate, seed) -> validation loss; None: the job left no folder.
        events: lines of its journal; None: each job finished in 20 seconds.
        sections: of the config of every job, as `make_config` takes them.
        extra: facts of the sweep's record.
    """
    entries = []
    folder.mkdir(parents=True)
    for number, ((rank, rate, seed), loss) in enumerate(losses.items()):
        overrides = (f"lora.rank={rank}", f"optimizer.learning_rate={rate}", f"seed={seed}")
        differs = {"lora.rank": rank, "optimizer.learning_rate": rate, "seed": seed}
        name = f"{number}_lora.rank-{rank},optimizer.learning_rate-{rate},seed-{seed}"
        entries.append(Entry(number, overrides, name, str(number), differs))
        if loss is not None:
            make_run(folder / name, make_config(seed, rank, rate, **(sections or {})), loss)
    facts = {
        "command": "llama-exp train -m experiment=some lora.rank=4,8 seed=0,1",
        "constants": ["experiment=some", "hydra.launcher.n_jobs=2"],
        **extra,
    }
    Record("2026-01-01T00:00:00+00:00", facts, None, {}, tuple(entries), "x").write(folder)
    if events is None:
        events = [event for n in range(len(entries)) for event in attempt(n)]
    (folder / "sweep.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def attempt(job, number=1, state="finished", seconds=20, cause=None):
    """The two lines of an attempt; with no state its end was seen by nobody."""
    start = {"time": f"2026-01-01T{number:02d}:00:00+00:00", "event": "begin", "job": job, "attempt": number}
    time = f"2026-01-01T{number:02d}:{seconds // 60:02d}:{seconds % 60:02d}+00:00"
    end = {"time": time, "event": "end", "job": job, "attempt": number, "state": state, "cause": cause}
    return [start] if state is None else [start, {**end, "exit_code": 0, "value": None}]


def _summary(status, loss, num_rows, more):
    steps = 10 * (num_rows - 1)
    facts = {"status": status, "exit_code": 0, "reason": None, "finished": "2026-01-01T00:01:00+00:00"}
    facts |= {"seconds": 20.0, "steps": steps, "tokens": steps * TOKENS_PER_STEP}
    if loss is not None:
        facts["validation"] = {"loss": _json(loss), "perplexity": _json(math.exp(min(loss, 700.0)))}
    return {**facts, **more}


def _json(value):
    return value if value is None or math.isfinite(value) else {True: "Infinity", False: "NaN"}[value == math.inf]
