"""llama_exp's own jobs, forked from servers: the bits of a cold process, and nothing initialised before the fork."""

import json
import os
import subprocess
import sys

import pytest
from whole_runs import ROOT, complete, rows

pytestmark = pytest.mark.process

PROBE = """
import atexit, json, os, pathlib, sys
from llama_exp.run.sweep_app import LlamaApp

HERE = pathlib.Path(__file__).parent

def own():
    return sorted(name for name in sys.modules if name.split(".")[0] == "llama_exp")

class Probe(LlamaApp):
    def prepare(self):
        super().prepare()
        import keras
        backend = keras.config.backend()
        if backend == "jax":
            from jax._src import xla_bridge
            initialised = xla_bridge.backends_are_initialized()
        else:
            from tensorflow.python.eager import context
            initialised = context.context()._context_handle is not None
        found = {"initialised": initialised, "threads": len(os.listdir("/proc/self/task")), "modules": own()}
        (HERE / f"{backend}.json").write_text(json.dumps(found))

class Modules:
    def __init__(self):
        import keras
        path = HERE / f"{keras.config.backend()}-job.json"
        atexit.register(lambda: path.write_text(json.dumps(own())))

    def on_metrics(self, row): ...
"""
FEW = 6  # threads: TensorFlow has two and JAX three behind their import, a hundred once they run


def train(folder, *overrides):
    own = ["trainer.max_steps=4", "runtime.threads=1", "trusted_modules=[probe]", *overrides]
    own.append("+trainer.callbacks.modules={_target_: probe.Modules}")
    command = [sys.executable, str(ROOT / "train.py"), *complete(folder, own, small=True)]
    kept = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    kept |= {"PYTHONPATH": f"{ROOT}:{folder}", "LLAMA_EXP_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def test_jobs_on_both_backends_have_the_bits_of_cold_processes(tmp_path):
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "text.txt").write_text("\n\n".join(f"paragraph number {n}, and a few more words" for n in range(80)))
    sweep = ["-m", "runtime.backend=tensorflow,jax", "hydra.launcher.app=probe.Probe", "hydra.sweep.dir=sweep"]
    train(tmp_path, *sweep, "hydra.sweep.subdir=${hydra.job.num}")
    for number, backend in enumerate(("tensorflow", "jax")):
        before = json.loads((tmp_path / f"{backend}.json").read_text())
        after = json.loads((tmp_path / f"{backend}-job.json").read_text())
        assert before["initialised"] is False and before["threads"] <= FEW
        assert set(after) - set(before["modules"]) == set(), "would be read from files that may have been edited since"
        train(tmp_path, f"runtime.backend={backend}", f"hydra.run.dir=cold-{backend}")
        forked, cold = tmp_path / "sweep" / str(number), tmp_path / f"cold-{backend}"
        assert rows(forked) == rows(cold)
        weights = sorted(path.relative_to(cold) for path in (cold / "model").glob("*.h5"))
        assert weights and all((forked / path).read_bytes() == (cold / path).read_bytes() for path in weights)
