"""The steps of a block between its matrix products, each with its gradient written out.

    rms_norm(x)         x / rms(x) * scale
    rotate_heads(x)     (M, heads * H) to (B, heads, S, H), turned by RoPE
    attend(q, k, v)     softmax(q k^T + bias) v
    swiglu(gate, up)    silu(gate) * up

Left to automatic differentiation, each small operation keeps its result and passes over memory again, in both
directions: on a CPU in bfloat16 that took as long as the matrix products. Here one function runs forward and one
backward; `backend.fused` lets XLA make a single pass of each, also where the products around are not XLA's. What is
kept between the two is what the arguments list.

Numerics: everything in float32 but the products of `attend`, which are in the dtype of their operands; one rounding to
the compute dtype at the end of a function. The tests hold each function against its formula under automatic
differentiation.

Shape letters: B batch, S query positions, T key positions, N heads (of queries, or of keys and values), K key/value
heads, G = N / K, H head_dim, M = B * S rows, D hidden_dim, F intermediate_dim.
In masks and tables B is 1 where all rows share them.

B, S and T may be unknown while a graph is traced, as where Keras' own `fit` traces one: they are read with `ops.shape`,
which gives numbers where they are known.
"""

from __future__ import annotations

from keras import ops

from llama_exp import backend


def rms_norm(x_MD, scale_D, epsilon: float, dtype: str, scale_trains: bool):
    """The norm x / sqrt(mean(x^2) + epsilon) * scale, in `dtype`; `scale_D` has a gradient only if `scale_trains`."""

    def forward(x_MD, scale_D):
        y_MD, inverse_M1 = _norm_forward(x_MD, scale_D, epsilon, dtype)
        return y_MD, (x_MD, scale_D, inverse_M1)

    def backward(kept, upstream_MD):
        x_MD, scale_D, inverse_M1 = kept
        dscale_D = _norm_scale_gradient(x_MD, inverse_M1, upstream_MD) if scale_trains else None
        return _norm_backward(x_MD, scale_D, inverse_M1, upstream_MD), dscale_D

    return backend.with_gradient(forward, backward)(x_MD, scale_D)


@backend.fused
def _norm_forward(x_MD, scale_D, epsilon, dtype):
    x_MD = backend.float32(x_MD)
    inverse_M1 = ops.rsqrt(ops.mean(ops.square(x_MD), axis=-1, keepdims=True) + epsilon)
    return ops.cast(x_MD * inverse_M1 * backend.float32(scale_D), dtype), inverse_M1


@backend.fused
def _norm_backward(x_MD, scale_D, inverse_M1, upstream_MD):
    dtype, x_MD = x_MD.dtype, backend.float32(x_MD)
    upstream_MD = backend.float32(upstream_MD) * backend.float32(scale_D)
    along_M1 = ops.mean(upstream_MD * x_MD, axis=-1, keepdims=True)
    return ops.cast(inverse_M1 * (upstream_MD - x_MD * (ops.square(inverse_M1) * along_M1)), dtype)


@backend.fused
def _norm_scale_gradient(x_MD, inverse_M1, upstream_MD):
    product_MD = backend.float32(upstream_MD) * backend.float32(x_MD) * inverse_M1
    return ops.sum(product_MD, axis=tuple(range(len(product_MD.shape) - 1)))


def swiglu(gate_MF, up_MF):
    """silu(gate) * up, in the dtype of `up_MF`."""

    def forward(gate_MF, up_MF):
        return _swiglu_forward(gate_MF, up_MF), (gate_MF, up_MF)

    def backward(kept, upstream_MF):
        return _swiglu_backward(*kept, upstream_MF)

    return backend.with_gradient(forward, backward)(gate_MF, up_MF)


@backend.fused
def _swiglu_forward(gate_MF, up_MF):
    return ops.cast(ops.silu(backend.float32(gate_MF)) * backend.float32(up_MF), up_MF.dtype)


@backend.fused
def _swiglu_backward(gate_MF, up_MF, upstream_MF):
    dtype = up_MF.dtype
    gate_MF, up_MF, upstream_MF = backend.float32(gate_MF), backend.float32(up_MF), backend.float32(upstream_MF)
    sigmoid_MF = ops.sigmoid(gate_MF)
    slope_MF = sigmoid_MF * (1 + gate_MF * (1 - sigmoid_MF))
    return ops.cast(upstream_MF * up_MF * slope_MF, dtype), ops.cast(upstream_MF * gate_MF * sigmoid_MF, dtype)


def heads(x, num_heads: int, num_positions: int):
    """(M, N * H) to (B, N, S, H), where S is `num_positions`."""
    x_BSNH = ops.reshape(x, (-1, num_positions, num_heads, x.shape[-1] // num_heads))
    return ops.transpose(x_BSNH, (0, 2, 1, 3))


def rows(y_BNSH):
    """(B, N, S, H) to (M, N * H)."""
    y_BSNH = ops.transpose(y_BNSH, (0, 2, 1, 3))
    return ops.reshape(y_BSNH, (-1, y_BSNH.shape[2] * y_BSNH.shape[3]))


def rotate_heads(x, cos_B1SH, sin_B1SH, num_heads: int):
    """(M, N * H) to (B, N, S, H) with the pair (x_e, x_{e+H/2}) turned by the angle of the tables.

    The tables are those of `rope_tables`: a factor in them (1 / sqrt(H) for queries) is applied too. They get no
    gradient.
    """

    def forward(x, cos_B1SH, sin_B1SH):
        return _rotate_forward(x, cos_B1SH, sin_B1SH, num_heads), (cos_B1SH, sin_B1SH)

    def backward(kept, upstream_BNSH):
        return _rotate_backward(upstream_BNSH, *kept), None, None

    return backend.with_gradient(forward, backward)(x, cos_B1SH, sin_B1SH)


@backend.fused
def _rotate_forward(x, cos_B1SH, sin_B1SH, num_heads):
    dtype, x_BNSH = x.dtype, backend.float32(heads(x, num_heads, ops.shape(cos_B1SH)[2]))
    turned_BNSH = ops.roll(x_BNSH, x_BNSH.shape[-1] // 2, axis=-1)
    return ops.cast(x_BNSH * backend.float32(cos_B1SH) + turned_BNSH * backend.float32(sin_B1SH), dtype)


@backend.fused
def _rotate_backward(upstream_BNSH, cos_B1SH, sin_B1SH):
    dtype, upstream_BNSH = upstream_BNSH.dtype, backend.float32(upstream_BNSH)
    turned_BNSH = ops.roll(upstream_BNSH * backend.float32(sin_B1SH), upstream_BNSH.shape[-1] // 2, axis=-1)
    return rows(ops.cast(upstream_BNSH * backend.float32(cos_B1SH) + turned_BNSH, dtype))


def attend(q_BNSH, k_BKTH, v_BKTH, bias_B1ST, keep_weights: bool = True):
    """softmax(q k^T + bias) v, with G query heads to each key/value head.

    The queries of a group are stacked along the query axis of one product, so that keys and values are never repeated.

    Args:
        q_BNSH: queries; they carry the factor 1 / sqrt(H) already.
        k_BKTH: keys.
        v_BKTH: values.
        bias_B1ST: from `attention_bias`; gets no gradient.
        keep_weights: whether the attention weights (B, N, S, T), the largest tensor of a block, are kept for the
            backward pass; otherwise it computes them again.

    Returns:
        (B, N, S, H) in the dtype of the operands.
    """
    num_heads, num_queries, head_dim = ops.shape(q_BNSH)[1:]
    num_groups = k_BKTH.shape[1]
    stacked = (-1, num_groups, num_heads // num_groups * num_queries, head_dim)  # (B, K, G * S, H)

    def attention_weights(q, k, bias_B1ST):
        return _softmax_forward(ops.matmul(q, _transpose(k)), bias_B1ST)

    def forward(q, k, v, bias_B1ST):
        weights = attention_weights(q, k, bias_B1ST)
        return ops.matmul(weights, v), (q, k, v, weights if keep_weights else bias_B1ST)

    def backward(kept, upstream):
        q, k, v, last = kept
        weights = last if keep_weights else attention_weights(*backend.after(upstream, (q, k, last)))
        dscores = _softmax_backward(weights, ops.matmul(upstream, _transpose(v)))
        dv = ops.matmul(_transpose(weights), upstream)
        return ops.matmul(dscores, k), ops.matmul(_transpose(dscores), q), dv, None

    y = backend.with_gradient(forward, backward)(ops.reshape(q_BNSH, stacked), k_BKTH, v_BKTH, bias_B1ST)
    return ops.reshape(y, (-1, num_heads, num_queries, head_dim))


def _transpose(x):
    return ops.transpose(x, (0, 1, 3, 2))


@backend.fused
def _softmax_forward(scores, bias_B1ST):
    num_queries, num_keys = ops.shape(bias_B1ST)[2:]
    shape = ops.shape(scores)
    scores_BNST = ops.reshape(backend.float32(scores), (shape[0], -1, num_queries, num_keys)) + bias_B1ST
    return ops.cast(ops.reshape(ops.softmax(scores_BNST, axis=-1), shape), scores.dtype)


@backend.fused
def _softmax_backward(weights, upstream):
    dtype, weights, upstream = weights.dtype, backend.float32(weights), backend.float32(upstream)
    return ops.cast(weights * (upstream - ops.sum(weights * upstream, axis=-1, keepdims=True)), dtype)
