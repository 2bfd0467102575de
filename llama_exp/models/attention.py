"""Causal self-attention with grouped key/value heads (Ainslie et al. 2023, arXiv:2305.13245).

Shape letters: B batch, S query positions, T key positions, D hidden_dim, N query heads, K key/value heads,
H head_dim, M = B * S rows. In masks, B is 1 where all rows share them.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from llama_exp import backend
from llama_exp.models.fused import attend, heads, rotate_heads, rows
from llama_exp.models.linear import Linear
from llama_exp.models.rope import RopeTables

MASKED = -1e9  # finite, so that a row with every key masked (a padding query) stays finite too


def attention_bias(num_queries, num_keys, first_query=0, padding_mask=None, segment_ids=None):
    """What is added to attention scores: 0 where a query may look, `MASKED` where not.

    A query at position s sees the keys t <= first_query + s whose padding mask is set and which belong to its own
    segment. Two documents of lengths 2 and 1 and one padding token, packed into a row (x: visible):

        segment_ids  1 1 2 0
                     x . . .
                     x x . .
                     . . x .
                     . . . x

    Args:
        num_queries: S.
        num_keys: T.
        first_query: key position of the first query; an int or an integer scalar tensor.
        padding_mask: (B, T), non-zero for real tokens; None: no padding.
        segment_ids: (B, T) with S = T; None: one segment.

    Returns:
        (B, 1, S, T) float32.
    """
    queries_S1 = ops.arange(num_queries, dtype="int32")[:, None] + first_query
    visible = (ops.arange(num_keys, dtype="int32")[None, :] <= queries_S1)[None, :, :]
    if padding_mask is not None:
        visible = ops.logical_and(visible, ops.cast(padding_mask, "bool")[:, None, :])
    if segment_ids is not None:
        visible = ops.logical_and(visible, ops.equal(segment_ids[:, :, None], segment_ids[:, None, :]))
    return ops.where(visible, 0.0, MASKED)[:, None, :, :]


@keras.saving.register_keras_serializable(package="llama_exp")
class SelfAttention(keras.layers.Layer):
    """softmax(rope(q) rope(k)^T / sqrt(H) + bias) v, projected back to the hidden dimension.

    N / K query heads share one key/value head.

    Numerics: products in the compute dtype, rotation and softmax in float32.

    Args:
        num_query_heads: N.
        num_key_value_heads: K, a divisor of N.
        dropout: probability of zeroing an element of the heads' output, in training.
        linear: makes the four projections; called as `Linear` is, returns one or a kind of it.
        **kwargs: Keras layer arguments (`name`, `dtype`).
    """

    def __init__(
        self, num_query_heads: int, num_key_value_heads: int, dropout: float, linear: Callable = Linear, **kwargs
    ):
        super().__init__(autocast=False, **kwargs)  # casts are written out where they happen
        self.num_query_heads = num_query_heads
        self.num_key_value_heads = num_key_value_heads
        self.dropout = dropout
        self._linear = linear

    def build(self, input_shape):
        """Creates query (D, N*H), key and value (D, K*H) and attention_output (N*H, D) for inputs (M, D)."""
        hidden_dim = input_shape[-1]
        self.head_dim = hidden_dim // self.num_query_heads
        query_dim, key_value_dim = hidden_dim, self.num_key_value_heads * self.head_dim
        self.query = self._linear(query_dim, dtype=self.dtype_policy, name="query")
        self.key = self._linear(key_value_dim, dtype=self.dtype_policy, name="key")
        self.value = self._linear(key_value_dim, dtype=self.dtype_policy, name="value")
        self.attention_output = self._linear(hidden_dim, dtype=self.dtype_policy, name="attention_output")
        for projection in (self.query, self.key, self.value):
            projection.build((None, hidden_dim))
        self.attention_output.build((None, query_dim))
        self.built = True

    def call(self, x_MD, rope: RopeTables, bias_B1ST, cache=None, cache_index=None, seeds=None, keep_weights=True):
        """Attends from x_MD to itself, or to a cache that it is written into first.

        Args:
            x_MD: (M, D) in the compute dtype.
            rope: tables for the S positions of x.
            bias_B1ST: from `attention_bias`; with a cache T is the cache's length.
            cache: keys and values so far, each (B, K, T, H); None: attend to x alone.
            cache_index: where in T the first of the S positions goes; an int or an integer scalar tensor.
            seeds: `DropoutSeeds` in training, None otherwise.
            keep_weights: see `attend`.

        Returns:
            (M, D) in the compute dtype, and the updated cache (None without one).
        """
        num_queries = ops.shape(rope.cos_query)[2]
        q_BNSH = rotate_heads(self.query(x_MD, seeds=seeds), rope.cos_query, rope.sin_query, self.num_query_heads)
        k_BKTH = rotate_heads(self.key(x_MD, seeds=seeds), rope.cos_key, rope.sin_key, self.num_key_value_heads)
        v_BKTH = heads(self.value(x_MD, seeds=seeds), self.num_key_value_heads, num_queries)
        if cache is not None:
            start = (0, 0, cache_index, 0)
            k_BKTH = ops.slice_update(cache[0], start, k_BKTH)
            v_BKTH = ops.slice_update(cache[1], start, v_BKTH)
            cache = (k_BKTH, v_BKTH)
        y_MD = rows(attend(q_BNSH, k_BKTH, v_BKTH, bias_B1ST, keep_weights))
        if seeds is not None and self.dropout > 0:
            y_MD = seeds.dropout(y_MD, self.dropout)
        return self.attention_output(y_MD, seeds=seeds), cache

    def get_config(self) -> dict:
        """Constructor arguments."""
        return backend.layer_config(self) | {
            "num_query_heads": self.num_query_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "dropout": self.dropout,
        }
