"""Compilation, gradients, loops and conditional updates behave alike on both backends."""

import logging

import keras
import numpy as np
import pytest
from keras import ops

from llama_exp import backend

pytestmark = pytest.mark.neutral


def variable(value, name=None):
    return keras.Variable(np.asarray(value, "float32"), name=name)


def test_compiled_reads_the_current_values_and_assigns():
    weight, total = variable(2.0), variable(0.0)

    def step(x):
        total.assign_add(weight * x)
        return {"seen": total.value + 0.0}

    call = backend.compiled(step, reads=[weight], writes=[total], jit=True)
    assert float(call(3.0)["seen"]) == 6.0
    weight.assign(10.0)
    assert float(call(np.float32(1))["seen"]) == 16.0
    assert float(total.numpy() if hasattr(total, "numpy") else total.value) == 16.0


def test_new_python_numbers_do_not_compile_anew():
    traces = []

    def step(x, n):
        traces.append(1)
        return x * ops.cast(n, "float32")

    call = backend.compiled(step, reads=[], writes=[], jit=True)
    assert [float(call(float(i), i)) for i in range(4)] == [0.0, 1.0, 4.0, 9.0]
    assert len(traces) == 1


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX turns an unlisted variable into a constant")
@pytest.mark.parametrize("kind", ["read", "written"])
def test_unlisted_variables_are_refused(kind):
    hidden = variable(1.0)
    listed = [hidden] if kind == "written" else []
    function = (lambda: hidden.assign(2.0) * 0) if kind == "written" else (lambda: hidden * 1.0)
    with pytest.raises(ValueError, match="list|writes"):
        backend.compiled(function, reads=listed, writes=[], jit=True)()


def test_gradients_of_listed_variables_only_and_seed_updates_survive():
    weight, frozen, idle = variable([1.0, 2.0]), variable([3.0, 4.0]), variable([5.0])
    seeds = keras.random.SeedGenerator(7)

    def step(x):
        def loss():
            mask = keras.random.uniform((2,), seed=seeds)
            return ops.sum(weight * frozen * x), mask

        return backend.value_and_gradients(loss, [weight, idle])

    call = backend.compiled(step, reads=[weight, frozen, idle], writes=[seeds.state], jit=True)
    (loss, first), (gradient, zero) = call(np.array([1.0, 1.0], "float32"))
    (_, second), _ = call(np.array([1.0, 1.0], "float32"))
    assert float(loss) == 11.0
    np.testing.assert_array_equal(ops.convert_to_numpy(gradient), [3.0, 4.0])
    np.testing.assert_array_equal(ops.convert_to_numpy(zero), [0.0])
    assert not np.array_equal(ops.convert_to_numpy(first), ops.convert_to_numpy(second))


def test_embedding_gradients_are_dense_and_repeatable():
    table = variable(np.zeros((16, 8)))
    ids = np.random.default_rng(0).integers(0, 16, 4096).astype("int32")
    factors = np.random.default_rng(1).normal(size=(4096, 8)).astype("float32")

    def step(ids, factors):
        return backend.value_and_gradients(lambda: (ops.sum(ops.take(table, ids, axis=0) * factors), None), [table])[1]

    call = backend.compiled(step, reads=[table], writes=[], jit=False)
    results = [ops.convert_to_numpy(call(ids, factors)[0]) for _ in range(5)]
    expected = np.zeros((16, 8))
    np.add.at(expected, ids, factors.astype("float64"))
    np.testing.assert_allclose(results[0], expected, atol=1e-4)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("jit", [False, True])
def test_scan_carries_stacks_and_assigns(jit):
    count = variable(0.0)

    def step(xs):
        def body(carry, x):
            count.assign_add(1.0)
            return {"sum": carry["sum"] + x["a"]}, x["a"] * 2.0

        return backend.scan(body, {"sum": ops.zeros((3,))}, {"a": xs}, y_dtype="float32", updates=[count])

    call = backend.compiled(step, reads=[], writes=[count], jit=jit)
    xs = np.arange(12, dtype="float32").reshape(4, 3)
    carry, ys = call(xs)
    np.testing.assert_array_equal(ops.convert_to_numpy(carry["sum"]), xs.sum(0))
    np.testing.assert_array_equal(ops.convert_to_numpy(ys), 2 * xs)
    assert float(ops.convert_to_numpy(count)) == 4.0


def test_gradients_inside_a_scan():
    weight, seeds = variable([2.0]), keras.random.SeedGenerator(1)

    def step(xs):
        def body(carry, x):
            def loss():
                keras.random.uniform((1,), seed=seeds)
                return ops.sum(weight * weight * x), None

            (loss, _), (gradient,) = backend.value_and_gradients(loss, [weight])
            return (carry[0] + loss, carry[1] + gradient), None

        carry, ys = backend.scan(body, (ops.zeros(()), ops.zeros((1,))), xs, updates=[seeds.state])
        assert ys is None
        return carry

    before = ops.convert_to_numpy(seeds.state).copy()
    loss, gradient = backend.compiled(step, [weight], [seeds.state], jit=False)(np.array([1.0, 2.0, 3.0], "float32"))
    assert float(loss) == 24.0 and float(gradient[0]) == 24.0
    assert not np.array_equal(before, ops.convert_to_numpy(seeds.state))


@pytest.mark.parametrize("jit", [False, True])
def test_update_if(jit):
    weight = variable([1.0, 1.0])

    def step(x):
        backend.update_if(ops.all(ops.isfinite(x)), lambda: weight.assign(weight + x), [weight])
        return weight.value + 0.0

    call = backend.compiled(step, reads=[], writes=[weight], jit=jit)
    call(np.array([1.0, np.nan], "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(weight), [1.0, 1.0])
    call(np.array([1.0, 2.0], "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(weight), [2.0, 3.0])


def test_facts():
    assert backend.device_kind() in ("cpu", "gpu")
    assert backend.device_name()
    assert backend.peak_memory_bytes() > 10 * 2**20


def test_resolve_jit(monkeypatch):
    jax = keras.backend.backend() == "jax"
    assert backend.resolve_jit("true", "float32")[0] is True
    assert backend.resolve_jit("false", "float32")[0] is False
    assert backend.resolve_jit("auto", "float32")[0] is jax
    assert backend.resolve_jit("auto", "float16")[0] is True
    monkeypatch.setattr(backend, "_cpuinfo", lambda *keys: "sse avx512_bf16")
    assert backend.resolve_jit("auto", "bfloat16")[0] is jax
    monkeypatch.setattr(backend, "_cpuinfo", lambda *keys: "sse avx2")
    assert backend.resolve_jit("auto", "bfloat16")[0] is True
    with pytest.raises(ValueError, match="auto, true, false"):
        backend.resolve_jit("yes", "float32")


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="TensorFlow's logger")
def test_advice_about_tracing_is_left_out_and_warnings_are_not():
    import tensorflow as tf

    seen, handler = [], logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    tf.get_logger().addHandler(handler)
    try:
        tf.get_logger().warning("5 out of the last 5 calls to %s triggered tf.function retracing.", "f")
        tf.get_logger().warning("the disk is full")
    finally:
        tf.get_logger().removeHandler(handler)
    assert seen == ["the disk is full"]
