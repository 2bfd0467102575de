"""Each optimizer's update in NumPy, float64, as its paper has it; and the same variables for ours.

State is a dict that an update fills. Shapes: whatever the variable has.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp import optimizer as optimizers

SHARED = {"weight_decay": 0.1, "global_clipnorm": None}
OWN = {
    "adamw": {"beta_1": 0.9, "beta_2": 0.95, "epsilon": 1e-8},
    "sgd": {"momentum": 0.9, "nesterov": False},
    "lion": {"beta_1": 0.9, "beta_2": 0.99},
    "adafactor": {
        "beta_2_decay": -0.8,
        "epsilon_1": 1e-30,
        "epsilon_2": 1e-3,
        "clip_threshold": 1.0,
        "multiply_by_parameter_scale": True,
    },
    "muon": {
        "momentum": 0.95,
        "nesterov": True,
        "update_rms": 0.2,
        "beta_1": 0.9,
        "beta_2": 0.95,
        "epsilon": 1e-8,
    },
}
# Path -> shape: a wide and a tall matrix, an embedding, and the scales of a norm.
SHAPES = {"query/kernel": (4, 6), "output/kernel": (5, 4), "token_embedding/embeddings": (5, 4), "norm/scale": (4,)}


def variables(dtype="float32", shapes=SHAPES):
    generator = np.random.default_rng(0)
    made = []
    for path, shape in shapes.items():
        scope, name = path.split("/")
        with keras.name_scope(scope):
            made.append(keras.Variable(generator.normal(size=shape).astype("float32"), name=name, dtype=dtype))
    return made


def gradients(step, shapes=SHAPES):
    generator = np.random.default_rng(100 + step)
    return [generator.normal(size=shape).astype("float32") for shape in shapes.values()]


def make(name, learning_rate=0.05, **changes):
    """Our optimizer of that name."""
    return getattr(optimizers, name)(learning_rate=learning_rate, **SHARED | OWN[name] | changes)


def values(variables):
    return [np.asarray(ops.convert_to_numpy(ops.cast(x.value, "float32")), "float64") for x in variables]


def train(optimizer, weights, num_steps, gradients=gradients, fuse=False):
    """What our optimizer, or one of Keras', makes of the weights; `fuse`: as in training, which compiles longer."""
    optimizer.build(weights)
    writes = [*weights, *optimizer.variables]
    call = backend.compiled(lambda grads: optimizer.apply(grads, weights), [], writes, jit=False, fuse=fuse)
    for step in range(num_steps):
        call(gradients(step))
    return values(weights)


def expected(name, weights, num_steps, rate, *, factors=(), decay=None, clip=None, **changes):
    """What the paper makes of them.

    Args:
        name: of the optimizer.
        weights: that `variables` made, still unchanged.
        num_steps: updates.
        rate: (number of the update, from 1) -> learning rate.
        factors: path -> factor on it.
        decay: (number of the update, factor) -> share of a matrix to take away; None: rate * factor * 0.1.
        clip: longest gradient over all variables.
        **changes: numbers that are not those of OWN.
    """
    numbers, factors = OWN[name] | changes, dict(factors)
    paths, arrays = [x.path for x in weights], values(weights)
    states = [{} for _ in weights]
    for u in range(1, num_steps + 1):
        grads = [g.astype("float64") for g in gradients(u - 1)]
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        for i, path in enumerate(paths):
            g, factor = grads[i] * (1 if clip is None else min(1, clip / norm)), factors.get(path, 1.0)
            taken = 0.0
            if arrays[i].ndim > 1:
                taken = rate(u) * factor * 0.1 if decay is None else decay(u, factor)
            step = STEPS[name](path, arrays[i], g, u, states[i], numbers)
            arrays[i] = arrays[i] - taken * arrays[i] - rate(u) * factor * step
    return arrays


def _adamw(path, w, g, u, state, n):
    state["m"] = n["beta_1"] * state.get("m", 0) + (1 - n["beta_1"]) * g
    state["v"] = n["beta_2"] * state.get("v", 0) + (1 - n["beta_2"]) * g**2
    correction = np.sqrt(1 - n["beta_2"] ** u) / (1 - n["beta_1"] ** u)
    return correction * state["m"] / (np.sqrt(state["v"]) + n["epsilon"])


def _sgd(path, w, g, u, state, n):
    state["b"] = n["momentum"] * state.get("b", 0) + g
    return g + n["momentum"] * state["b"] if n["nesterov"] else state["b"]


def _lion(path, w, g, u, state, n):
    m = state.get("m", 0)
    state["m"] = n["beta_2"] * m + (1 - n["beta_2"]) * g
    return np.sign(n["beta_1"] * m + (1 - n["beta_1"]) * g)


def _adafactor(path, w, g, u, state, n):
    beta = 1 - u ** n["beta_2_decay"]
    squares = g**2 + n["epsilon_1"]
    if g.ndim == 2:  # algorithm 4, with sums as the paper has them
        state["r"] = beta * state.get("r", 0) + (1 - beta) * squares.sum(1)
        state["c"] = beta * state.get("c", 0) + (1 - beta) * squares.sum(0)
        v = np.outer(state["r"], state["c"]) / state["r"].sum()
    else:
        v = state["v"] = beta * state.get("v", 0) + (1 - beta) * squares
    step = g / np.sqrt(v)
    step = step / max(1, np.sqrt((step**2).mean()) / n["clip_threshold"])
    return step * (max(n["epsilon_2"], np.sqrt((w**2).mean())) if n["multiply_by_parameter_scale"] else 1)


def _muon(path, w, g, u, state, n):
    if g.ndim != 2 or "embedding" in path:
        return _adamw(path, w, g, u, state, n)
    step = _sgd(path, w, g, u, state, n)
    left, singular, right = np.linalg.svd(step, full_matrices=False)
    singular = singular / np.linalg.norm(singular)
    for _ in range(5):  # the polynomial acts on singular values alone
        singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
    return n["update_rms"] * np.sqrt(max(w.shape)) * (left * singular) @ right


STEPS = {"adamw": _adamw, "sgd": _sgd, "lion": _lion, "adafactor": _adafactor, "muon": _muon}
