"""AdamW against Keras' own, and what is special about it; `test_rules` has its formula."""

import keras
import numpy as np
import pytest
from keras import ops
from updates import OWN, SHARED, train, variables

from llama_exp.optimizer import adamw

pytestmark = pytest.mark.neutral

OPTIONS = SHARED | OWN["adamw"]


def test_what_the_updates_share_is_computed_once(monkeypatch):
    powers, power = [], ops.power
    monkeypatch.setattr(ops, "power", lambda *arguments: powers.append(arguments) or power(*arguments))
    train(adamw(learning_rate=0.01, **OPTIONS), variables(), 1)
    assert len(powers) == 2


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
    np.testing.assert_array_equal(ops.convert_to_numpy(weights[-1]), before[-1])


def test_bfloat16_weights_move_and_keep_float32_moments():
    options = OPTIONS | {"beta_2": 0.999, "weight_decay": 0.0}
    weights = variables("bfloat16")
    before = np.asarray(ops.convert_to_numpy(weights[0]), "float32")
    optimizer = adamw(learning_rate=0.05, **options)
    exact = train(adamw(learning_rate=0.05, **options), variables(), 4)[0]
    trained = train(optimizer, weights, 4)[0]
    moments = [v for v in optimizer.variables if "momentum" in v.path or "velocity" in v.path]
    assert len(moments) == 8 and all(v.dtype == "float32" for v in moments)
    assert np.abs(trained - before).max() > 0.05
    np.testing.assert_allclose(trained, exact, atol=0.05)
