"""Next-token prediction: cross-entropy of hidden states without the whole logits in memory.

    loss = sum over counted positions of  log(Z) - (h W)[label],     Z = sum(exp(h W)),     h (D,) hidden, W (D, V)
    z loss = z_loss * sum over counted positions of  log(Z)^2        which keeps log(Z) near 0

The second one, of PaLM (Chowdhery et al. 2022, arXiv:2204.02311, section 5), is off unless `z_loss` is above 0; it is
reported beside the loss, never in it. With p the softmax, together they have the gradient
(1 + 2 * z_loss * log(Z)) * p - onehot(label) with respect to the logits h W, so that it costs no second pass.

Logits for B*S tokens are by far the largest tensor of a step (16 x 1024 tokens and 128k words: 8 GB in float32).
Here they exist for `chunk_tokens` tokens at a time: the forward pass already turns each chunk's logits into the
gradients of its hidden states and of W, so that the backward pass only scales them (as Liger Kernel does,
Hsu et al. 2024, arXiv:2410.10989).

Shape letters: B batch, S positions, D hidden_dim, V vocabulary, M = B * S tokens, C tokens of a chunk.
"""

from __future__ import annotations

from keras import ops

from llama_exp import backend
from llama_exp.limits.objective import LIMITS


def next_token_loss(
    token_embedding, hidden_BSD, labels_BS, loss_mask_BS, *, chunk_tokens: int, training: bool, z_loss: float = 0.0
):
    """The summed loss of a batch under a model's output kernel, tied or not.

    Args:
        token_embedding: the backbone's; its `product_operands` say what is multiplied.
        hidden_BSD: (B, S, D) in the compute dtype.
        labels_BS: (B, S) integers in [0, V); those that do not count may be any.
        loss_mask_BS: (B, S) weights, 0 where a position does not count.
        chunk_tokens: positions whose logits exist at the same time.
        training: whether the result is differentiable; if not, no gradient is computed.
        z_loss: coefficient of the mean of log(Z)^2; of training alone, validation tells the plain loss.

    Returns:
        (summed loss, sum of the weights): float32 scalars. With `z_loss` above 0 the first one is a float32 (2,): loss
        and z loss, summed, whose sum alone can be differentiated.
    """
    hidden_BSD, kernel, vocabulary_axis, kernel_trains = token_embedding.product_operands(hidden_BSD)
    arguments = (hidden_BSD, kernel, labels_BS, loss_mask_BS)
    options = {"chunk_tokens": chunk_tokens, "vocabulary_axis": vocabulary_axis}
    if training:
        return differentiable_cross_entropy(*arguments, **options, kernel_trains=kernel_trains, z_loss=z_loss)
    return cross_entropy(*arguments, **options)


def cross_entropy(hidden_BSD, kernel, labels_BS, loss_mask_BS, *, chunk_tokens: int, vocabulary_axis: int):
    """Summed loss and weight for evaluation; see `next_token_loss`. kernel: (V, D) or (D, V) by `vocabulary_axis`."""
    chunks = _chunks(hidden_BSD, labels_BS, loss_mask_BS, chunk_tokens)
    kernel = ops.cast(kernel, hidden_BSD.dtype)

    def add(loss, chunk):
        hidden_CD, labels_C, weights_C = chunk
        return loss + _chunk_loss(_logits(hidden_CD, kernel, vocabulary_axis), labels_C, weights_C), None

    loss, _ = backend.scan(add, ops.zeros((), dtype="float32"), chunks)
    return loss, ops.sum(ops.cast(loss_mask_BS, "float32"))


def next_token_scores(token_embedding, hidden_BSD, labels_BS, *, chunk_tokens: int):
    """How likely each label is, and whether it is the likeliest token; see `next_token_loss`.

    Returns:
        (B, S) log-probabilities in nats and (B, S) 1 where no other token is likelier (of equal ones the first counts),
        else 0: both float32.
    """
    hidden_BSD, kernel, vocabulary_axis, _ = token_embedding.product_operands(hidden_BSD)
    batch_size, length, _ = hidden_BSD.shape
    chunks = _chunks(hidden_BSD, labels_BS, ops.ones_like(labels_BS, dtype="float32"), chunk_tokens)
    kernel = ops.cast(kernel, hidden_BSD.dtype)

    def score(carry, chunk):
        hidden_CD, labels_C, _ = chunk
        return carry, _chunk_scores(_logits(hidden_CD, kernel, vocabulary_axis), labels_C)

    _, scores = backend.scan(score, ops.zeros((), dtype="float32"), chunks, y_dtype="float32")
    scores_M2 = ops.reshape(scores, (-1, 2))[: batch_size * length]
    return ops.reshape(scores_M2[:, 0], (batch_size, length)), ops.reshape(scores_M2[:, 1], (batch_size, length))


def differentiable_cross_entropy(
    hidden_BSD,
    kernel,
    labels_BS,
    loss_mask_BS,
    *,
    chunk_tokens: int,
    vocabulary_axis: int,
    kernel_trains: bool,
    z_loss: float = 0.0,
):
    """As `cross_entropy`, with gradients for the hidden states and, only if `kernel_trains`, for the kernel.

    With `z_loss`, losses are (2,) as `next_token_loss` says.

    Numerics: logits, softmax and the sum of the kernel's gradient in float32; products in the dtype of the hidden
    states, except that float16 sends gradients back through float32 products: the loss scale, which keeps small
    values from vanishing, reaches this function only in the backward pass.
    """
    hidden_CHUNKS, labels_CHUNKS, weights_CHUNKS = _chunks(hidden_BSD, labels_BS, loss_mask_BS, chunk_tokens)
    dtype = hidden_BSD.dtype
    gradient_dtype = "float32" if "float16" in str(dtype) and "bfloat16" not in str(dtype) else dtype
    shape = (2,) if z_loss else ()

    def forward(hidden_CHUNKS, kernel_FULL):
        kernel = ops.cast(kernel_FULL, dtype)
        gradient_kernel = ops.cast(kernel_FULL, gradient_dtype)

        def add(carry, chunk):
            hidden_CD, labels_C, weights_C = chunk
            logits_CV = _logits(hidden_CD, kernel, vocabulary_axis)
            loss, dlogits_CV = _chunk_loss_and_gradient(logits_CV, labels_C, weights_C, gradient_dtype, z_loss)
            dhidden_CD = ops.einsum("cv,vd->cd" if vocabulary_axis == 0 else "cv,dv->cd", dlogits_CV, gradient_kernel)
            carry = {**carry, "loss": carry["loss"] + loss}
            if kernel_trains:
                h_CD = ops.cast(hidden_CD, gradient_dtype)
                equation = "cv,cd->vd" if vocabulary_axis == 0 else "cv,cd->dv"
                carry["dkernel"] += ops.cast(ops.einsum(equation, dlogits_CV, h_CD), "float32")
            return carry, dhidden_CD

        carry = {"loss": ops.zeros(shape, dtype="float32")}
        if kernel_trains:
            carry["dkernel"] = ops.zeros(kernel_FULL.shape, dtype="float32")
        chunks = (hidden_CHUNKS, labels_CHUNKS, weights_CHUNKS)
        return backend.scan(add, carry, chunks, y_dtype=gradient_dtype)

    @ops.custom_gradient
    def with_kernel(hidden_CHUNKS, kernel):
        carry, dhidden_CHUNKS = forward(hidden_CHUNKS, kernel)

        def backward(upstream):
            upstream = upstream[0] if shape else upstream
            return _scaled(dhidden_CHUNKS, upstream, dtype), _scaled(carry["dkernel"], upstream, kernel.dtype)

        return carry["loss"], backward

    frozen_kernel = ops.stop_gradient(kernel)  # a tensor: TensorFlow allows no variables inside custom_gradient

    @ops.custom_gradient
    def without_kernel(hidden_CHUNKS):
        carry, dhidden_CHUNKS = forward(hidden_CHUNKS, frozen_kernel)
        return carry["loss"], lambda upstream: _scaled(dhidden_CHUNKS, upstream[0] if shape else upstream, dtype)

    loss = with_kernel(hidden_CHUNKS, kernel) if kernel_trains else without_kernel(hidden_CHUNKS)
    return loss, ops.sum(ops.cast(loss_mask_BS, "float32"))


def _logits(hidden_CD, kernel, vocabulary_axis: int):
    return ops.einsum("cd,vd->cv" if vocabulary_axis == 0 else "cd,dv->cv", hidden_CD, kernel)


@backend.fused
def _chunk_loss(logits_CV, labels_C, weights_C):
    """Sum of the weighted losses, a float32 scalar."""
    shifted_CV, log_sum_C, _ = _shifted_logits(logits_CV)
    return _weighted_sum(shifted_CV, log_sum_C, labels_C, weights_C)


@backend.fused
def _chunk_scores(logits_CV, labels_C):
    """Log-probability of each label and whether it is the largest, (C, 2) float32."""
    shifted_CV, log_sum_C, _ = _shifted_logits(logits_CV)
    scores_C = ops.take_along_axis(shifted_CV, labels_C[:, None], axis=1)[:, 0] - log_sum_C
    is_largest_C = ops.cast(ops.argmax(shifted_CV, axis=-1), "int32") == labels_C
    return ops.stack([scores_C, ops.cast(is_largest_C, "float32")], axis=-1)


@backend.fused
def _chunk_loss_and_gradient(logits_CV, labels_C, weights_C, dtype, z_loss):
    """As `_chunk_loss`, and the gradient with respect to the logits (C, V), weights included, in `dtype`.

    With `z_loss`, losses are (2,) as `next_token_loss` says.
    """
    shifted_CV, log_sum_C, largest_C = _shifted_logits(logits_CV)
    is_label_CV = ops.arange(logits_CV.shape[1], dtype="int32")[None, :] == labels_C[:, None]
    probabilities_CV = ops.exp(shifted_CV - log_sum_C[:, None])
    loss, log_z_C = _weighted_sum(shifted_CV, log_sum_C, labels_C, weights_C), log_sum_C + largest_C
    if z_loss:
        probabilities_CV = probabilities_CV * (1.0 + 2.0 * z_loss * log_z_C)[:, None]
        squares = ops.sum(ops.where(weights_C > 0, ops.square(log_z_C) * weights_C, 0.0))
        loss = ops.stack([loss, z_loss * squares])
    dlogits_CV = (probabilities_CV - ops.cast(is_label_CV, "float32")) * weights_C[:, None]
    # A product with 0 would keep a NaN of a position that does not count.
    dlogits_CV = ops.cast(ops.where(weights_C[:, None] > 0, dlogits_CV, 0.0), dtype)
    return loss, dlogits_CV


def _shifted_logits(logits_CV):
    """Logits less their maximum (C, V), the logarithm of the sum of their exponentials, and the maximum (C,), float32.

    The last two add up to log(Z) of the logits themselves.
    """
    logits_CV = ops.cast(logits_CV, "float32")
    largest_C1 = ops.max(logits_CV, axis=-1, keepdims=True)
    shifted_CV = logits_CV - largest_C1
    return shifted_CV, ops.log(ops.sum(ops.exp(shifted_CV), axis=-1)), largest_C1[:, 0]


def _weighted_sum(shifted_CV, log_sum_C, labels_C, weights_C):
    counted_C = weights_C > 0
    labels_C1 = ops.where(counted_C, labels_C, 0)[:, None]  # the label of a position that does not count may be any
    losses_C = log_sum_C - ops.take_along_axis(shifted_CV, labels_C1, axis=1)[:, 0]
    return ops.sum(ops.where(counted_C, losses_C * weights_C, 0.0))


def _chunks(hidden_BSD, labels_BS, loss_mask_BS, chunk_tokens: int):
    """Tokens in chunks of equal size, at most `chunk_tokens`; the last one is filled up with weight 0."""
    LIMITS.require(chunk_tokens=chunk_tokens)
    batch_size, length, hidden_dim = hidden_BSD.shape
    num_tokens = batch_size * length
    num_chunks = -(-num_tokens // chunk_tokens)
    size = -(-num_tokens // num_chunks)  # chunks of nearly equal size leave the least to fill up
    missing = num_chunks * size - num_tokens

    def split(x, trailing):
        x = ops.reshape(x, (num_tokens, *trailing))
        if missing:
            x = ops.pad(x, [(0, missing)] + [(0, 0)] * len(trailing))
        return ops.reshape(x, (num_chunks, size, *trailing))

    weights = ops.cast(loss_mask_BS, "float32")
    return split(hidden_BSD, (hidden_dim,)), split(ops.cast(labels_BS, "int32"), ()), split(weights, ())


def _scaled(gradient, upstream, dtype):
    return ops.cast(ops.cast(gradient, "float32") * ops.cast(upstream, "float32"), dtype)
