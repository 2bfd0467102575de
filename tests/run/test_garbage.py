"""Every reader of a run's own files on hundreds of mutations: it works, or says what is wrong and what to do.

Byte by byte: bits flipped, parts cut out, doubled, put in. And value by value, where a digest of the file's own is
right, so that nothing but the reader's own care notices.
"""

import copy
import json
import os
import random
import shutil

import numpy as np
import pytest
import yaml
from mutations import mutated_bytes, mutated_value

from llama_exp.config.check import check_arguments
from llama_exp.config.identity import config_hash, continuation_hash, to_record
from llama_exp.console.progress import Progress
from llama_exp.errors import ConfigError, ExitCode, InputError, LlamaExpError
from llama_exp.files.latest import is_latest, point_latest_to, without_latest
from llama_exp.files.lock import FolderLock
from llama_exp.files.metrics_file import MetricsFile, Samples, read_metrics
from llama_exp.files.process import ALONE
from llama_exp.run import figures, provenance, recorded, resume
from llama_exp.run.folder import RunFolder
from llama_exp.run.unfinished import find_shorter, find_unfinished, require_run_record
from llama_exp.trainer import Checkpoints, load
from llama_exp.trainer.contents import read_contents
from llama_exp.trainer.counters import Counters
from llama_exp.trainer.manifest import MANIFEST, write_manifest
from llama_exp.trainer.observers import Observers

MUTATIONS = 300
TOLD = (ExitCode.INPUT, ExitCode.STORAGE)
FACTS = {"git": {"commit": "a", "dirty": False}, "command": "python train.py", "host": "here", "python": "3"}


def survives(use, codes=TOLD):
    """Runs `use`; true if it worked, false for an error that is told as one should be. Anything else fails the test."""
    try:
        use()
    except LlamaExpError as error:
        assert error.exit_code in codes, error
        for problem in error.problems:
            assert problem.what and problem.where and problem.found and problem.action
            assert "Error(" not in problem.action and len(str(problem)) < 3000
        return False
    return True


@pytest.fixture
def draw(request):
    return random.Random(request.node.name)


@pytest.fixture(scope="module")
def config():
    return check_arguments(["tokenizer=byte", "trainer.max_steps=6", "trainer.checkpoint_every_steps=3"]).config


@pytest.fixture
def run(tmp_path, config, monkeypatch):
    """The folder of a run that was cut off after step 6."""
    monkeypatch.setattr(provenance, "collect", lambda *_: (copy.deepcopy(FACTS), "+a line"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power cut here
    monkeypatch.setattr(figures, "write_plot", lambda runs, path: None)
    folder = RunFolder.create(tmp_path / "runs" / "one")
    folder.begin(to_record(config), ["tokenizer=byte"], ["train.py", "tokenizer=byte"], config_hash(config))
    folder.record(
        continuation_hash=continuation_hash(config),
        dataset={"train": {"fingerprint": "a"}, "validation": {"fingerprint": "b"}},
        tokenizer={"fingerprint": "c"},
        preset={"source": None, "origin": None, "revision": None, "digest": None},
        quantization={"mode": "none"},
    )
    for step in range(7):
        row = {"step": step, "split": "train", "loss": 5.0 - step / 2, "learning_rate": 1e-3, "tokens": 10 * step}
        folder.metrics.on_metrics(row | {"seconds": 0.5 * step, "tokens_per_second": 20.0, "mfu": None})
    folder.samples.on_sample(6, "a", "ab")
    observers = {"metrics": folder.metrics, "samples": folder.samples, "progress": Progress(6)}
    state = {"progress": vars(Counters(step=6)), "seeds": [[1, 2]], "data": {"position": 48}}
    state["observers"] = {name: observer.state() for name, observer in observers.items()}
    tensors = {"trainable": {"w": np.ones((2, 3), "float32")}, "optimizer": {"iteration": np.int64(6)}}
    checkpoints_of(folder.path).save(6, tensors, state, base_digest="d")
    for observer in observers.values():
        observer.on_finish("failed")
    folder.close()
    return folder.path


def checkpoints_of(run):
    return Checkpoints(run / "checkpoints", keep=2, config_hash="h", facts={"threads": 2})


def mutate_file(draw, path, good):
    """Writes a mutation of `good`, in half of the cases one that keeps the form."""
    if path.suffix == ".json" and draw.random() < 0.5:
        path.write_text(json.dumps(mutated_value(draw, json.loads(good))))
    elif path.suffix == ".yaml" and draw.random() < 0.5:
        path.write_text(yaml.safe_dump(mutated_value(draw, yaml.safe_load(good))))
    elif path.suffix == ".jsonl" and draw.random() < 0.5:
        rows = mutated_value(draw, [json.loads(line) for line in good.splitlines()])
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_bytes(mutated_bytes(draw, good))


def compared(run, config):
    """What a run that goes on reads before its folder is touched, and what it is compared with then."""
    assert resume.continues("auto", run)
    require_run_record(run)
    resume.check_unchanged(run, to_record(config))
    resume.check_length("auto", run, 6)
    recorded.check_adapter(run, None)
    recorded.check_progress(run)
    recorded.preset_source(run, "hf://org/m")
    recorded.check_data(run, {"train": {"fingerprint": "a"}}, {"fingerprint": "c"})
    recorded.check_preset(run, {"revision": None, "digest": None})
    recorded.check_quantization(run, {"mode": "none"})


def started(run, config):
    """What it writes anew, and its end."""
    require_run_record(run)
    with RunFolder.reopen(run) as folder:
        folder.begin(to_record(config), [], ["train.py"], config_hash(config))


def searched(run, config):
    find_unfinished(run.parent, config_hash(config))
    find_shorter(run.parent, "another", continuation_hash(config), 6, lambda folder: True)


def codes_of(name):
    """Another value of a key is another config."""
    return (*TOLD, ExitCode.CONFIG) if name == "config.yaml" else TOLD


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "summary.json", "metrics.jsonl"])
def test_a_damaged_file_of_a_run_is_told_or_does_not_matter(run, config, draw, name):
    good, refused = (run / name).read_bytes(), 0
    for _ in range(MUTATIONS):
        mutate_file(draw, run / name, good)
        refused += not survives(lambda: compared(run, config), codes_of(name))
        assert survives(lambda: searched(run, config))
    assert (refused > MUTATIONS // 10) == (name != "summary.json")


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "summary.json", "overrides.yaml", "git.diff"])
def test_over_a_damaged_file_a_run_starts_or_says_why_not(run, config, draw, name, tmp_path):
    good = (run / name).read_bytes()
    for number in range(MUTATIONS // 15):
        copied = shutil.copytree(run, tmp_path / "copies" / str(number))
        mutate_file(draw, copied / name, good)
        survives(lambda copied=copied: started(copied, config), codes_of(name))


def test_damaged_metrics(run, draw):
    path, good, refused = run / "metrics.jsonl", (run / "metrics.jsonl").read_bytes(), 0
    for _ in range(MUTATIONS):
        mutate_file(draw, path, good)
        try:
            rows = read_metrics(path)
        except InputError as error:
            assert "line " in error.problems[0].found and "delete it" in error.problems[0].action
            refused += 1
        else:
            figures.figures(rows)
        metrics = MetricsFile(path)
        metrics.restore({"offset": len(good)})
        metrics.on_metrics({"step": 7, "split": "train", "loss": 1.0})
        assert json.loads(path.read_bytes().splitlines()[-1]) == {"step": 7, "split": "train", "loss": 1.0}
        metrics.on_finish("finished")
    assert MUTATIONS // 4 < refused < MUTATIONS


@pytest.mark.parametrize("sealed", [True, False], ids=["with a right digest", "byte by byte"])
def test_damaged_manifests(run, draw, sealed):
    folder, outcomes = run / "checkpoints" / "step-00000006", set()
    good = (folder / MANIFEST).read_bytes()
    observers = {"metrics": MetricsFile(run / "m"), "samples": Samples(run / "s"), "progress": Progress(6)}

    def use():
        checkpoint = load(folder)
        contents = read_contents(checkpoint)
        assert contents.counters.step == checkpoint.step == 6
        Observers(observers, ALONE).restore(contents.observers, checkpoint)

    for _ in range(MUTATIONS):
        (folder / MANIFEST).unlink()
        if sealed:
            manifest = mutated_value(draw, {key: value for key, value in json.loads(good).items() if key != "sha256"})
            write_manifest(folder, manifest)
        else:
            (folder / MANIFEST).write_bytes(mutated_bytes(draw, good))
        outcomes.add(survives(use))
    assert False in outcomes and (True in outcomes or not sealed)


def test_damaged_manifests_are_set_aside_or_read(run, draw):
    good = run / "checkpoints" / "step-00000006" / MANIFEST
    content, found = json.loads(good.read_bytes()), 0
    del content["sha256"]
    for number in range(MUTATIONS // 3):
        copied = run / str(number)
        shutil.copytree(run / "checkpoints", copied / "checkpoints")
        folder = copied / "checkpoints" / "step-00000006"
        (folder / MANIFEST).unlink()
        write_manifest(folder, mutated_value(draw, content))
        found += survives(lambda copied=copied: checkpoints_of(copied).newest())
    assert 0 < found < MUTATIONS // 3


def test_garbage_in_the_lock_is_no_owner(run, draw):
    good = b'{"pid": 1234, "host": "here", "started": "2026-01-01T00:00:00+0000"}'
    for _ in range(MUTATIONS):
        (run / ".lock").write_bytes(mutated_bytes(draw, good))
        lock = FolderLock(run)
        owner = lock.dead_owner
        assert owner is None or (owner["pid"].isdecimal() and "\x1b" not in "".join(owner.values()))
        lock.release()


LINKS = ["", ".", "..", "latest", "nowhere", "/", "/dev/null", "a" * 200, "one/../..", "\x1b[2J", "é", "one/run.json"]


@pytest.mark.parametrize("target", LINKS)
def test_a_latest_that_leads_anywhere(run, config, target):
    link = run.parent / "latest"
    if target:
        link.symlink_to(target)
    else:
        link.write_bytes(b"\xff")
    assert survives(lambda: searched(run, config))
    settled = without_latest(str(link))
    assert survives(lambda: resume.folder_of(settled, run.parent, ""))
    if target:
        with pytest.raises(ConfigError):  # no run lies there
            resume.continues(str(link), run.parent / "other")
        point_latest_to(run)
        assert is_latest(link) and os.readlink(link) == run.name
    else:
        point_latest_to(run)
        assert link.read_bytes() == b"\xff"
