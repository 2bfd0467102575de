"""Token embedding and output matrix as integers or float8; what they mean: `llama_exp.formats.quantized`.

Shape letters: B batch, S positions, D hidden_dim, V vocabulary, M rows (tokens).
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from llama_exp.architecture import TOKEN_EMBEDDING, Quantization
from llama_exp.formats.quantized import REVERSE_TABLE, SCALE, TABLE, ZERO
from llama_exp.models.embedding import TokenEmbedding
from llama_exp.models.quantized.integer_product import round_rows
from llama_exp.models.quantized.linear import (
    add_parts,
    product,
    read_numbers,
    tensors_of,
    to_floats,
    unpack,
    write_numbers,
)


@keras.saving.register_keras_serializable(package="llama_exp")
class QuantizedTokenEmbedding(TokenEmbedding):
    """Rows of a quantized table for token ids, and logits from hidden states; nothing trains.

    Its variables are `embeddings`, `embeddings_scale`, `reverse_embeddings` and `reverse_embeddings_scale` (untied),
    and each one's `_zero` for int4 with groups.

    Args:
        vocabulary_size: V.
        hidden_dim: D.
        tie_word_embeddings: see `TokenEmbedding`.
        quantization: of the model, or of this layer; the attribute is how both matrices are stored.
        **kwargs: Keras layer arguments (`name`, `dtype`).
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_dim: int,
        tie_word_embeddings: bool,
        quantization: Quantization | dict,
        **kwargs,
    ):
        super().__init__(vocabulary_size, hidden_dim, tie_word_embeddings, **kwargs)
        quantization = Quantization(**quantization) if isinstance(quantization, dict) else quantization
        self.quantization = quantization.of(TOKEN_EMBEDDING)

    def build(self, input_shape=None):
        """Creates the variables: tables of zeros."""
        shape = (self.vocabulary_size, self.hidden_dim)
        self._table = add_parts(self, "embeddings", shape, TABLE, self.quantization)
        self.embeddings = self._table[""]
        if self.tie_word_embeddings:
            self._output_matrix, self._output_shape, self._output_form = self._table, shape, TABLE
        else:
            self._output_shape, self._output_form = shape[::-1], REVERSE_TABLE
            parts = add_parts(self, "reverse_embeddings", self._output_shape, REVERSE_TABLE, self.quantization)
            self._output_matrix, self.reverse_embeddings = parts, parts[""]
        self.built = True

    def call(self, token_ids_BS):
        """Embeds token_ids_BS (B, S), integers in [0, V); returns (B, S, D) in the compute dtype."""
        # As tensors: TensorFlow takes rows of a float8 tensor, but not of a float8 variable.
        rows = {suffix: ops.take(part, token_ids_BS, axis=0) for suffix, part in tensors_of(self._table).items()}
        numbers, scale, group_size = rows[""], rows[SCALE], self.quantization.group_size
        if self.quantization.mode == "int4":
            numbers = unpack(numbers, self.hidden_dim, len(numbers.shape) - 1)
        x_BSD = ops.cast(numbers, "float32")
        if group_size is None:
            return ops.cast(x_BSD / scale[..., None], self.compute_dtype)
        groups = np.arange(self.hidden_dim) // group_size
        zero, scale = (ops.take(part, groups, axis=-1) for part in (ops.cast(rows[ZERO], "float32"), scale))
        return ops.cast((x_BSD - zero) * scale, self.compute_dtype)

    def project(self, hidden):
        """Logits (..., V) float32 of hidden states (..., D); numerics as in `QuantizedLinear`."""
        x_MD = ops.reshape(ops.cast(hidden, self.compute_dtype), (-1, self.hidden_dim))
        parts = tensors_of(self._output_matrix)
        logits_MV = product(x_MD, parts, self._output_shape, self._output_form, self.quantization, "float32")
        return ops.reshape(logits_MV, (*ops.shape(hidden)[:-1], self.vocabulary_size))

    def product_operands(self, hidden):
        """As in `TokenEmbedding`: floats that have the quantized product up to rounding of the compute dtype.

        Where activations are quantized, hidden comes back rounded to what its integers stand for; gradients pass the
        rounding unchanged.
        """
        if self.quantization.quantize_activations:
            integers, scale = round_rows(ops.stop_gradient(hidden), self.quantization.asymmetric_activations, "float32")
            hidden = hidden + (ops.cast(integers / scale, hidden.dtype) - ops.stop_gradient(hidden))
        parts = tensors_of(self._output_matrix)
        matrix = to_floats(parts, self._output_shape, self._output_form, self.quantization, self.compute_dtype)
        return hidden, matrix, 0 if self.tie_word_embeddings else 1, False

    def save_own_variables(self, store) -> None:
        """Writes the stored numbers into one of Keras' files."""
        write_numbers(self.weights, store)

    def load_own_variables(self, store) -> None:
        """Reads the stored numbers from one of Keras' files."""
        read_numbers(self.weights, store)

    def get_config(self) -> dict:
        """Constructor arguments."""
        return super().get_config() | {"quantization": vars(self.quantization)}
