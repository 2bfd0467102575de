"""Chunked cross-entropy equals the plain one: values, gradients, masks, memory."""

import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from keras import ops

from llama_exp import backend, objective

pytestmark = pytest.mark.neutral

B, S, D, V = 3, 7, 8, 11


def example(seed=0):
    rng = np.random.default_rng(seed)
    mask = (rng.random((B, S)) < 0.6).astype("float32")
    return (
        rng.normal(size=(B, S, D)).astype("float32"),
        rng.normal(size=(V, D)).astype("float32"),
        rng.integers(0, V, (B, S)).astype("int32"),
        mask,
    )


def plain(hidden, kernel_VD, labels, mask, upstream=1.0):
    """Loss, count and gradients in float64."""
    hidden, kernel = hidden.astype("float64").reshape(-1, D), kernel_VD.astype("float64")
    labels, mask = labels.reshape(-1), mask.astype("float64").reshape(-1)
    logits = hidden @ kernel.T
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -(np.log(probabilities[rows, labels]) * mask).sum()
    probabilities[rows, labels] -= 1
    dlogits = probabilities * mask[:, None] * upstream
    return loss, mask.sum(), (dlogits @ kernel).reshape(B, S, D), dlogits.T @ hidden


def embedding(kernel_VD, tied, trainable=True):
    table = keras.Variable(kernel_VD if tied else kernel_VD.T, trainable=trainable)
    operands = lambda hidden: (hidden, table.value, 0 if tied else 1, trainable)  # noqa: E731
    return types.SimpleNamespace(product_operands=operands), table


def run(values, tied, chunk_tokens, kernel_trains=True, jit=False, upstream=1.0, dtype="float32", **options):
    hidden, kernel, labels, mask = values
    layer, table = embedding(kernel, tied, kernel_trains)
    source = keras.Variable(hidden)
    differentiated = [source, table] if kernel_trains else [source]

    def step(labels, mask):
        def loss():
            total, count = objective.next_token_loss(
                layer, ops.cast(source, dtype), labels, mask, chunk_tokens=chunk_tokens, training=True, **options
            )
            return ops.sum(total) * upstream, (total, count)

        (_, aux), gradients = backend.value_and_gradients(loss, differentiated)
        return aux, gradients

    (total, count), gradients = backend.compiled(step, [source, table], [], jit)(labels, mask)
    gradients = [ops.convert_to_numpy(gradient) for gradient in gradients]
    if kernel_trains and not tied:
        gradients[1] = gradients[1].T
    total = ops.convert_to_numpy(total)
    return total if total.ndim else float(total), float(count), gradients


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk_tokens", [1, 4, 7, 21, 1000])
def test_equals_the_plain_loss_and_gradients(tied, chunk_tokens, jit):
    values = example()
    loss, count, dhidden, dkernel = plain(*values, upstream=0.3)
    total, weight, gradients = run(values, tied, chunk_tokens, jit=jit, upstream=0.3)
    assert total == pytest.approx(loss, rel=1e-5) and weight == count
    np.testing.assert_allclose(gradients[0], dhidden, atol=1e-5)
    np.testing.assert_allclose(gradients[1], dkernel, atol=1e-5)


def with_z_loss(values, coefficient, upstream=1.0):
    """The z loss and the gradients of loss and z loss together, in float64."""
    hidden, kernel, _, mask = (array.astype("float64") for array in values)
    logits = hidden.reshape(-1, D) @ kernel.T
    log_z = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    _, _, dhidden, dkernel = plain(*values, upstream=upstream)
    weights = mask.reshape(-1) * upstream
    dlogits = (2 * coefficient * log_z * weights)[:, None] * np.exp(logits - log_z[:, None])
    dhidden, dkernel = dhidden + (dlogits @ kernel).reshape(B, S, D), dkernel + dlogits.T @ hidden.reshape(-1, D)
    return coefficient * (log_z**2 * mask.reshape(-1)).sum(), dhidden, dkernel


@pytest.mark.parametrize(("chunk_tokens", "jit", "tied"), [(4, False, True), (21, True, False), (1000, True, True)])
def test_the_z_loss_and_its_gradient(chunk_tokens, jit, tied):
    values = example()
    loss, _, _, _ = plain(*values)
    z_loss, dhidden, dkernel = with_z_loss(values, 0.05, upstream=0.3)
    losses, _, gradients = run(values, tied, chunk_tokens, jit=jit, upstream=0.3, z_loss=0.05)
    np.testing.assert_allclose(losses, [loss, z_loss], rtol=1e-5)
    np.testing.assert_allclose(gradients[0], dhidden, atol=2e-5)
    np.testing.assert_allclose(gradients[1], dkernel, atol=2e-5)


def test_the_z_loss_of_a_frozen_kernel_and_of_positions_that_do_not_count():
    hidden, kernel, labels, mask = example()
    z_loss, dhidden, _ = with_z_loss((hidden, kernel, labels, mask), 0.05)
    hidden[mask == 0] = np.nan
    losses, _, gradients = run((hidden, kernel, labels, mask), True, 4, kernel_trains=False, z_loss=0.05)
    assert losses[1] == pytest.approx(z_loss, rel=1e-5)
    np.testing.assert_allclose(gradients[0][mask > 0], dhidden[mask > 0], atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_z_loss_in_lower_precision_is_close(dtype):
    values = example()
    z_loss, dhidden, dkernel = with_z_loss(values, 0.05)
    losses, _, gradients = run(values, True, 4, dtype=dtype, z_loss=0.05)
    assert losses[1] == pytest.approx(z_loss, rel=0.02)
    np.testing.assert_allclose(gradients[0], dhidden, atol=0.1)
    np.testing.assert_allclose(gradients[1], dkernel, atol=0.15)


@pytest.mark.parametrize("tied", [True, False])
def test_a_frozen_kernel(tied):
    values = example()
    loss, _, dhidden, _ = plain(*values)
    total, _, gradients = run(values, tied, 4, kernel_trains=False)
    assert total == pytest.approx(loss, rel=1e-5) and len(gradients) == 1
    np.testing.assert_allclose(gradients[0], dhidden, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_evaluation_equals_training(tied):
    values = example()
    layer, table = embedding(values[1], tied)
    call = backend.compiled(
        lambda *x: objective.next_token_loss(layer, *x, chunk_tokens=5, training=False), [table], [], jit=False
    )
    total, count = call(values[0], values[2], values[3])
    loss, weight, *_ = plain(*values)
    assert float(total) == pytest.approx(loss, rel=1e-5) and float(count) == weight


def test_nothing_counts():
    hidden, kernel, labels, mask = example()
    total, count, gradients = run((hidden, kernel, labels, mask * 0), True, 4)
    assert (total, count) == (0.0, 0.0)
    assert all((gradient == 0).all() for gradient in gradients)


def test_masked_positions_may_hold_anything():
    hidden, kernel, labels, mask = example()
    expected = run((hidden, kernel, labels, mask), True, 4)
    labels = np.where(mask > 0, labels, 10**6).astype("int32")
    total, _, gradients = run((hidden, kernel, labels, mask), True, 4)
    assert total == expected[0]
    np.testing.assert_array_equal(gradients[0], expected[2][0])


def test_huge_logits_stay_finite():
    hidden, kernel, labels, mask = example()
    total, _, gradients = run((hidden * 1e4, kernel * 10, labels, mask), True, 4)
    assert np.isfinite(total) and all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_is_close(dtype):
    values = example()
    loss, _, dhidden, dkernel = plain(*values)
    total, _, gradients = run(values, True, 4, dtype=dtype)
    assert total == pytest.approx(loss, rel=0.02)
    np.testing.assert_allclose(gradients[0], dhidden, atol=0.05)
    np.testing.assert_allclose(gradients[1], dkernel, atol=0.1)


def test_float16_gradients_do_not_vanish_before_the_loss_scale_reaches_them():
    values = example()
    values[0][:] *= 0.01
    _, _, gradients = run((values[0], values[1] * 1e-7, *values[2:]), True, 4, dtype="float16", upstream=2.0**15)
    _, _, dhidden, _ = plain(values[0], values[1] * 1e-7, *values[2:], upstream=2.0**15)
    assert np.abs(gradients[0]).max() > 0
    np.testing.assert_allclose(gradients[0], dhidden, rtol=0.02, atol=1e-5)


def test_chunk_tokens_below_one_is_refused():
    with pytest.raises(ValueError, match="chunk_tokens"):
        run(example(), True, 0)


@pytest.mark.process
@pytest.mark.parametrize("jit", [False, True] if keras.backend.backend() == "tensorflow" else [True])
def test_logits_are_never_whole_in_memory(jit):
    program = f"""
import numpy as np, keras
from keras import ops
from llama_exp import backend, objective
V, D, N = 16384, 64, 8192  # whole logits: 512 MiB
kernel, hidden = keras.Variable(np.zeros((V, D), "float32")), keras.Variable(np.ones((1, N, D), "float32"))
def step(labels, mask):
    def loss():
        arguments = (hidden.value, kernel.value, labels, mask)
        options = dict(chunk_tokens=CHUNK, vocabulary_axis=0, kernel_trains=True)
        return objective.differentiable_cross_entropy(*arguments, **options)[0], None
    (loss, _), gradients = backend.value_and_gradients(loss, [hidden, kernel])
    return loss, [ops.sum(gradient) for gradient in gradients]
def run(chunk):
    global CHUNK
    CHUNK = chunk
    call = backend.compiled(step, [hidden, kernel], [], {jit})
    float(ops.convert_to_numpy(call(np.zeros((1, N), "int32"), np.ones((1, N), "float32"))[0]))  # waits for it
    return backend.peak_memory_bytes()
start = run(128)
chunked = run(256) - start
whole = run(N) - start
print(chunked // 2**20, whole // 2**20)
"""
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    chunked, whole = map(int, result.stdout.split())
    assert whole > 400, "the measurement sees whole logits"
    assert chunked < 100
