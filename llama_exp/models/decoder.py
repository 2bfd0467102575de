"""One decoder block: attention and a gated feed-forward network, each normalized first and added to its input.

Shape letters: M = B * S rows, D hidden_dim, F intermediate_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras

from llama_exp import backend
from llama_exp.models.attention import SelfAttention
from llama_exp.models.fused import swiglu
from llama_exp.models.linear import Linear
from llama_exp.models.norm import RMSNorm


@keras.saving.register_keras_serializable(package="llama_exp")
class TransformerDecoder(keras.layers.Layer):
    """x + attention(norm(x)), then x + W_output(silu(W_gate norm(x)) * W_intermediate norm(x)).

    The feed-forward part is SwiGLU (Shazeer 2020, arXiv:2002.05202).

    Numerics: SiLU and its product in float32; everything else as in its layers.

    Args:
        intermediate_dim: F.
        num_query_heads: N.
        num_key_value_heads: K.
        layer_norm_epsilon: epsilon of both norms.
        dropout: probability, on the heads' output and on the attention's output, in training.
        linear: makes every projection; see `SelfAttention`.
        train_norms: whether the scales of both norms train.
        **kwargs: Keras layer arguments (`name`, `dtype`).
    """

    def __init__(
        self,
        intermediate_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        layer_norm_epsilon: float,
        dropout: float,
        linear: Callable = Linear,
        train_norms: bool = True,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # casts are written out where they happen
        self.intermediate_dim = intermediate_dim
        self.num_query_heads = num_query_heads
        self.num_key_value_heads = num_key_value_heads
        self.layer_norm_epsilon = layer_norm_epsilon
        self.dropout = dropout
        self._linear = linear
        self.train_norms = train_norms

    def build(self, input_shape):
        """Creates all variables of the block for inputs of shape (M, D)."""
        hidden_dim, policy = input_shape[-1], self.dtype_policy
        norm = partial(RMSNorm, self.layer_norm_epsilon, train_scale=self.train_norms, dtype=policy)
        self.self_attention = SelfAttention(
            self.num_query_heads,
            self.num_key_value_heads,
            self.dropout,
            self._linear,
            dtype=policy,
            name="self_attention",
        )
        self.self_attention_layernorm = norm(name="self_attention_layernorm")
        self.feedforward_intermediate_dense = self._linear(
            self.intermediate_dim, dtype=policy, name="feedforward_intermediate_dense"
        )
        self.feedforward_gate_dense = self._linear(self.intermediate_dim, dtype=policy, name="feedforward_gate_dense")
        self.feedforward_output_dense = self._linear(hidden_dim, dtype=policy, name="feedforward_output_dense")
        self.feedforward_layernorm = norm(name="feedforward_layernorm")
        for layer in (
            self.self_attention,
            self.self_attention_layernorm,
            self.feedforward_intermediate_dense,
            self.feedforward_gate_dense,
            self.feedforward_layernorm,
        ):
            layer.build((None, hidden_dim))
        self.feedforward_output_dense.build((None, self.intermediate_dim))
        self.built = True

    def call(self, x_MD, rope, bias_B1ST, cache=None, cache_index=None, seeds=None, keep_weights=True):
        """Runs the block; arguments and results are those of `SelfAttention.call`."""
        y_MD, cache = self.self_attention(
            self.self_attention_layernorm(x_MD),
            rope=rope,
            bias_B1ST=bias_B1ST,
            cache=cache,
            cache_index=cache_index,
            seeds=seeds,
            keep_weights=keep_weights,
        )
        if seeds is not None and self.dropout > 0:
            y_MD = seeds.dropout(y_MD, self.dropout)
        x_MD = x_MD + y_MD
        return x_MD + self._feedforward(self.feedforward_layernorm(x_MD), seeds), cache

    def _feedforward(self, x_MD, seeds):
        gate_MF = self.feedforward_gate_dense(x_MD, seeds=seeds)
        hidden_MF = swiglu(gate_MF, self.feedforward_intermediate_dense(x_MD, seeds=seeds))
        return self.feedforward_output_dense(hidden_MF, seeds=seeds)

    def linear_layers(self) -> list:
        """Its `Linear` layers, in order of use."""
        attention = self.self_attention
        return [
            attention.query,
            attention.key,
            attention.value,
            attention.attention_output,
            self.feedforward_gate_dense,
            self.feedforward_intermediate_dense,
            self.feedforward_output_dense,
        ]

    def get_config(self) -> dict:
        """Constructor arguments."""
        return backend.layer_config(self) | {
            "intermediate_dim": self.intermediate_dim,
            "num_query_heads": self.num_query_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "dropout": self.dropout,
            "train_norms": self.train_norms,
        }
