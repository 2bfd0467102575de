"""Incremental decoding: hidden states of new tokens, given the keys and values of those before them.

Shape letters: B batch, S new tokens, T cache slots, M = B * S rows, D hidden_dim, K key/value heads, H head_dim.
"""

from __future__ import annotations

from keras import ops

from llama_exp.models.attention import attention_bias


def new_cache(backbone, batch_size: int, max_length: int) -> list:
    """Empty keys and values for `call_with_cache`.

    Returns:
        Per block a pair of tensors (B, K, max_length, H) in the compute dtype: keys with RoPE applied, values.
    """
    head_dim = backbone.hidden_dim // backbone.num_query_heads
    shape = (batch_size, backbone.num_key_value_heads, max_length, head_dim)
    return [
        (ops.zeros(shape, dtype=backbone.compute_dtype), ops.zeros(shape, dtype=backbone.compute_dtype))
        for _ in backbone.transformer_layers
    ]


def call_with_cache(backbone, token_ids, cache, cache_index, padding_mask=None, position_ids=None):
    """Hidden states of new tokens, which also go into the cache.

    Args:
        backbone: a `LlamaBackbone`.
        token_ids: integers (B, S): a whole prompt, or the next token (S = 1).
        cache: from `new_cache`, or returned by the previous call; T is its length.
        cache_index: slot of the first new token, the same for all rows; an int or an integer scalar tensor.
        padding_mask: (B, T) over the cache's slots, non-zero where a real token is or will be; None: everywhere.
            Slots behind the new tokens are never seen, whatever it says.
        position_ids: (B, S); default cache_index .. cache_index + S-1. Rows padded in front need no others,
            since attention depends on distances only.

    Returns:
        Hidden states (B, S, D) in the compute dtype and the new cache.
    """
    length, max_length = ops.shape(token_ids)[1], ops.shape(cache[0][0])[2]
    if position_ids is None:
        position_ids = (ops.arange(length, dtype="int32") + cache_index)[None, :]
    bias_B1ST = attention_bias(length, max_length, first_query=cache_index, padding_mask=padding_mask)
    rope = backbone.rope(position_ids)
    x_MD = backbone.embed(token_ids)
    pairs = []
    for block, block_cache in zip(backbone.transformer_layers, cache, strict=True):
        x_MD, block_cache = block(x_MD, rope=rope, bias_B1ST=bias_B1ST, cache=block_cache, cache_index=cache_index)
        pairs.append(block_cache)
    return ops.reshape(backbone.layer_norm(x_MD), (-1, length, backbone.hidden_dim)), pairs
