"""AdamW against the formula in NumPy and against Keras' own."""

import keras
import numpy as np
import pytest
from keras import ops

from llama_exp import backend, schedule
from llama_exp.optimizer import adamw

pytestmark = pytest.mark.neutral

OPTIONS = {"weight_decay": 0.1, "beta_1": 0.9, "beta_2": 0.95, "epsilon": 1e-8, "global_clipnorm": None}


def variables(dtype="float32"):
    rng = np.random.default_rng(0)
    matrix = keras.Variable(rng.normal(size=(5, 4)).astype("float32"), name="kernel", dtype=dtype)
    scale = keras.Variable(np.ones(4, "float32"), name="scale", dtype=dtype)
    return [matrix, scale]


def gradients(step):
    rng = np.random.default_rng(step)
    return [rng.normal(size=(5, 4)).astype("float32"), rng.normal(size=(4,)).astype("float32")]


def train(optimizer, weights, num_steps):
    optimizer.build(weights)
    call = backend.compiled(
        lambda grads: optimizer.apply(grads, weights), [], [*weights, *optimizer.variables], jit=False
    )
    for step in range(num_steps):
        call(gradients(step))
    return [np.asarray(ops.convert_to_numpy(weight), "float64") for weight in weights]


def reference(weights, num_steps, rate, clip):
    weights = [np.asarray(ops.convert_to_numpy(weight), "float64") for weight in weights]
    m, v = [0.0, 0.0], [0.0, 0.0]
    for u in range(1, num_steps + 1):
        grads = [g.astype("float64") for g in gradients(u - 1)]
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        if clip is not None and norm > clip:
            grads = [g * clip / norm for g in grads]
        for i, g in enumerate(grads):
            if weights[i].ndim == 2:
                weights[i] = weights[i] * (1 - rate(u) * 0.1)
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.95 * v[i] + 0.05 * g**2
            alpha = rate(u) * np.sqrt(1 - 0.95**u) / (1 - 0.9**u)
            weights[i] = weights[i] - alpha * m[i] / (np.sqrt(v[i]) + 1e-8)
    return weights


def test_what_the_updates_share_is_computed_once(monkeypatch):
    powers, power = [], ops.power
    monkeypatch.setattr(ops, "power", lambda *arguments: powers.append(arguments) or power(*arguments))
    train(adamw(learning_rate=0.01, **OPTIONS), variables(), 1)
    assert len(powers) == 2


@pytest.mark.parametrize("clip", [None, 0.5])
def test_matches_the_formula(clip):
    rate = schedule.linear(learning_rate=0.01, num_steps=12, warmup_steps=4, final_fraction=0.2)
    expected = reference(variables(), 12, lambda u: float(rate(u - 1)), clip)
    trained = train(adamw(learning_rate=rate, **OPTIONS | {"global_clipnorm": clip}), variables(), 12)
    for ours, theirs in zip(trained, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_equals_keras_when_scales_are_excluded_there():
    theirs = keras.optimizers.AdamW(0.01, weight_decay=0.1, beta_1=0.9, beta_2=0.95, epsilon=1e-8)
    theirs.exclude_from_weight_decay(var_names=["scale"])
    ours = train(adamw(learning_rate=0.01, **OPTIONS), variables(), 6)
    for a, b in zip(ours, train(theirs, variables(), 6), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_decay_alone_moves_matrices_and_never_scales():
    weights = variables()
    before = [ops.convert_to_numpy(weight).copy() for weight in weights]
    optimizer = adamw(learning_rate=0.5, **OPTIONS)
    optimizer.build(weights)
    optimizer.apply([np.zeros_like(value) for value in before], weights)
    np.testing.assert_allclose(ops.convert_to_numpy(weights[0]), before[0] * 0.95, rtol=1e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(weights[1]), before[1])


def test_bfloat16_weights_move_and_keep_float32_moments():
    options = OPTIONS | {"beta_2": 0.999, "weight_decay": 0.0}
    weights = variables("bfloat16")
    before = np.asarray(ops.convert_to_numpy(weights[0]), "float32")
    optimizer = adamw(learning_rate=0.05, **options)
    exact = train(adamw(learning_rate=0.05, **options), variables(), 4)[0]
    trained = train(optimizer, weights, 4)[0]
    moments = [v for v in optimizer.variables if "momentum" in v.path or "velocity" in v.path]
    assert len(moments) == 4 and all(v.dtype == "float32" for v in moments)
    assert np.abs(trained - before).max() > 0.05
    np.testing.assert_allclose(trained, exact, atol=0.05)
