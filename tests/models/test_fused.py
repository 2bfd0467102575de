"""Each fused step against its formula: values, and gradients under automatic differentiation."""

import keras
import numpy as np
import pytest
from keras import ops

from llama_exp import backend
from llama_exp.models import fused
from llama_exp.models.attention import attention_bias
from llama_exp.models.rope import inverse_frequencies, rope_tables

pytestmark = pytest.mark.neutral

B, S, N, K, H = 2, 6, 4, 2, 8
M, D, F = B * S, N * H, 24
EXACT = 1e-5
WITHIN_BFLOAT16 = 0.02  # relative, of the largest value


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


def tables(dtype):
    positions = np.arange(S, dtype="int32")[None, :]
    return rope_tables(positions, inverse_frequencies(H, 10000.0), 1.0, dtype)


def plain_norm(x, scale):
    x = ops.cast(x, "float32")
    return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6) * scale


def plain_rotation(x, dtype):
    rope = tables("float32")
    x = ops.transpose(ops.reshape(ops.cast(x, "float32"), (B, S, N, H)), (0, 2, 1, 3))
    first, second = x[..., : H // 2], x[..., H // 2 :]
    turned = ops.concatenate([second, first], axis=-1)
    return x * rope.cos_query + turned * rope.sin_query


def plain_attention(q, k, v):
    q, k, v = (ops.cast(x, "float32") for x in (q, k, v))
    k, v = ops.repeat(k, N // K, axis=1), ops.repeat(v, N // K, axis=1)
    scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) + attention_bias(S, S)
    return ops.matmul(ops.softmax(scores, axis=-1), v)


def attention(keep_weights):
    return lambda q, k, v: fused.attend(q, k, v, attention_bias(S, S), keep_weights)


CASES = {
    "norm": (
        lambda dtype: lambda x, scale: fused.rms_norm(x, scale, 1e-6, dtype, True),
        lambda dtype: plain_norm,
        [(M, D), (D,)],
    ),
    "swiglu": (
        lambda dtype: fused.swiglu,
        lambda dtype: lambda gate, up: ops.silu(ops.cast(gate, "float32")) * ops.cast(up, "float32"),
        [(M, F), (M, F)],
    ),
    "rotation": (
        lambda dtype: lambda x: fused.rotate_heads(x, tables(dtype).cos_query, tables(dtype).sin_query, N),
        lambda dtype: lambda x: plain_rotation(x, dtype),
        [(M, D)],
    ),
    "attention": (
        lambda dtype: attention(True),
        lambda dtype: plain_attention,
        [(B, N, S, H), (B, K, S, H), (B, K, S, H)],
    ),
    "attention, weights computed again": (
        lambda dtype: attention(False),
        lambda dtype: plain_attention,
        [(B, N, S, H), (B, K, S, H), (B, K, S, H)],
    ),
}


def value_and_gradients(function, arrays, dtype, fuse):
    """Result, and gradients of a weighted sum of it, inside a compiled function."""
    variables = [keras.Variable(array) for array in arrays]

    def step():
        def loss():
            inputs = [ops.cast(v, "float32" if len(v.shape) == 1 else dtype) for v in variables]
            result = ops.cast(function(*inputs), "float32")
            return ops.sum(result * ops.convert_to_tensor(draw(*result.shape, seed=9))), result

        (_, result), gradients = backend.value_and_gradients(loss, variables)
        return [result, *gradients]

    compiled = backend.compiled(step, variables, [], jit=keras.backend.backend() == "jax", fuse=fuse)
    return [ops.convert_to_numpy(x) for x in compiled()]


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_equals_its_formula(case, dtype, fuse):
    ours, plain, shapes = CASES[case]
    arrays = [draw(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    found = value_and_gradients(ours(dtype), arrays, dtype, fuse)
    expected = value_and_gradients(plain(dtype), arrays, "float32", False)
    assert len(found) == len(shapes) + 1
    for ours_, theirs in zip(found, expected, strict=True):
        assert ours_.shape == theirs.shape and np.abs(theirs).max() > 0.1
        tolerance = (EXACT if dtype == "float32" else WITHIN_BFLOAT16) * np.abs(theirs).max()
        np.testing.assert_allclose(ours_, theirs, atol=tolerance, rtol=0)


def test_a_norm_that_does_not_train_gives_its_scale_no_gradient():
    x, scale = keras.Variable(draw(M, D)), keras.Variable(draw(D))

    def step():
        def loss():
            return ops.sum(fused.rms_norm(x.value, scale.value, 1e-6, "float32", False)), None

        return backend.value_and_gradients(loss, [x, scale])[1]

    dx, dscale = backend.compiled(step, [x, scale], [], jit=keras.backend.backend() == "jax")()
    assert np.abs(ops.convert_to_numpy(dx)).max() > 0.01 and np.abs(ops.convert_to_numpy(dscale)).max() == 0


def test_queries_that_see_no_key_stay_finite():
    q, k, v = (ops.convert_to_tensor(draw(*shape)) for shape in ((B, N, S, H), (B, K, S, H), (B, K, S, H)))
    nothing = attention_bias(S, S, padding_mask=np.zeros((B, S), "int32"))
    assert np.isfinite(ops.convert_to_numpy(fused.attend(q, k, v, nothing))).all()
