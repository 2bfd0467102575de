"""Nothing is compiled after the second step, whatever the precision, with XLA and without.

XLA on TensorFlow compiled anew at each step once: for it the arguments of a function that is called inside were
constants, token ids and weights among them. No number was wrong, only a step a hundred times as slow.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

# Steps of four precisions; prints how often Python traced each, and marks the steps in the backend's own log.
STEPS = """
import sys
import numpy as np, keras
from llama_exp import backend, precision
from llama_exp.models import LlamaBackbone
from llama_exp.optimizer import adamw
from llama_exp.trainer.step import TrainStep
if keras.backend.backend() == "jax":
    import jax
    def note(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            print("COMPILED", file=sys.stderr, flush=True)
    jax.monitoring.register_event_duration_secs_listener(note)
def batch(number):
    generator, shape = np.random.default_rng(number), (2, 2, 8)
    one = np.ones(shape, "int32")
    ids = lambda: generator.integers(0, 32, shape).astype("int32")
    return {"token_ids": ids(), "labels": ids(), "segment_ids": one * (1 + number % 2), "padding_mask": one,
            "position_ids": ids() % 8, "loss_mask": generator.integers(0, 2, shape).astype("float32")}
for policy in ("float32", "mixed_bfloat16", "bfloat16", "mixed_float16"):
    backbone = LlamaBackbone(vocabulary_size=32, num_layers=2, num_query_heads=2, hidden_dim=8, intermediate_dim=16,
                             num_key_value_heads=1, dropout=0.1, dtype=precision.policy(policy))
    optimizer = adamw(learning_rate=1e-2, weight_decay=0.1, beta_1=0.9, beta_2=0.95, epsilon=1e-6, global_clipnorm=1.0)
    # The loss scale doubles at every second step, so that it changes while nothing may be compiled.
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**4, dynamic_growth_steps=2)
    step = TrainStep(backbone, optimizer, chunk_tokens=16, jit=sys.argv[1] == "true")
    for number in range(6):
        print("STEP", policy, number, file=sys.stderr, flush=True)
        result = step(batch(number))
        assert result.finite, (policy, number, result)
    print("END", policy, file=sys.stderr, flush=True)
    print(policy, result.loss_scale)
"""
# TensorFlow's compiler tells each of its compilations at this level.
TELLING = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "device_compiler=1"}


@pytest.mark.parametrize(
    ("keras_backend", "jit", "sign"),
    [
        ("tensorflow", "true", "Compilation of XLA executable time"),
        # Of the parts between the products.
        pytest.param("tensorflow", "false", "Compilation of XLA executable time", marks=pytest.mark.slow),
        ("jax", "true", "COMPILED"),
    ],
)
def test_nothing_compiles_after_the_second_step(keras_backend, jit, sign, tmp_path):
    environment = {**os.environ, **TELLING, "KERAS_BACKEND": keras_backend, "OMP_NUM_THREADS": "2"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    environment["JAX_COMPILATION_CACHE_DIR"] = ""
    command = [sys.executable, "-c", STEPS, jit]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    counts: dict[str, list[int]] = {}
    policy = None  # between the last step of one and the first of the next a model is built
    for line in done.stderr.splitlines():
        if line.startswith(("STEP ", "END ")):
            policy = line.split()[1] if line.startswith("STEP ") else None
            if policy is not None:
                counts.setdefault(policy, []).append(0)
        elif sign in line and policy is not None:
            counts[policy][-1] += 1
    assert set(counts) == {"float32", "mixed_bfloat16", "bfloat16", "mixed_float16"}
    for found in counts.values():
        assert found[0] >= 1 and sum(found[2:]) == 0, json.dumps(counts)
    assert "mixed_float16 64.0" in done.stdout  # the loss scale did change
