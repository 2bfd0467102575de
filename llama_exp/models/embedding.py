"""Token embedding and the projection back to the vocabulary.

Shape letters: B batch, S positions, D hidden_dim, V vocabulary, M rows (tokens).
"""

from __future__ import annotations

import keras
from keras import ops

from llama_exp import backend
from llama_exp.architecture import INITIALIZER_RANGES
from llama_exp.architecture.draws import draw_normal
from llama_exp.backend.initial import Initializer
from llama_exp.models.keras_methods import InnerLayer


@keras.saving.register_keras_serializable(package="llama_exp")
class TokenEmbedding(InnerLayer):
    """Rows of a table (V, D) for token ids, and logits from hidden states.

    Args:
        vocabulary_size: V.
        hidden_dim: D.
        tie_word_embeddings: logits use the same table transposed (Press & Wolf 2017, arXiv:1608.05859); otherwise
            a matrix `reverse_embeddings` (D, V) of their own.
        embedding_initializer_range: standard deviation of the table's first values.
        output_initializer_range: likewise of the matrix of its own; None: the same.
        seed: of these values, see `Initializer`.
        **kwargs: Keras layer arguments (`name`, `dtype`).
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_dim: int,
        tie_word_embeddings: bool,
        embedding_initializer_range: float = INITIALIZER_RANGES["embedding_initializer_range"],
        seed: int | None = None,
        output_initializer_range: float | None = None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # casts are written out where they happen
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.tie_word_embeddings = tie_word_embeddings
        self.embedding_initializer_range = embedding_initializer_range
        self.output_initializer_range = output_initializer_range
        self.seed = seed
        self.reverse_embeddings = None

    def build(self, input_shape=None):
        """Creates `embeddings` (V, D) and, if untied, `reverse_embeddings` (D, V)."""
        shape, deviation = (self.vocabulary_size, self.hidden_dim), self.embedding_initializer_range
        self.embeddings = self._add_table("embeddings", shape, deviation)
        if not self.tie_word_embeddings:
            own = self.output_initializer_range
            self.reverse_embeddings = self._add_table(
                "reverse_embeddings", shape[::-1], deviation if own is None else own
            )
        self.built = True

    def _add_table(self, name, shape, deviation):
        initializer = Initializer(draw_normal, self.seed, f"{self.path}/{name}", deviation)
        return self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)

    def call(self, token_ids_BS):
        """Embeds token_ids_BS (B, S), integers in [0, V); returns (B, S, D) in the compute dtype."""
        # Gather first: casting the rows costs less than casting the table.
        return ops.cast(ops.take(self.embeddings.value, token_ids_BS, axis=0), self.compute_dtype)

    def project(self, hidden):
        """Logits of hidden states.

        Numerics: the product runs in the compute dtype (matrix units accumulate in float32), the result is float32.

        Args:
            hidden: (..., D).

        Returns:
            (..., V) float32.
        """
        x_MD = ops.reshape(ops.cast(hidden, self.compute_dtype), (-1, self.hidden_dim))
        if self.tie_word_embeddings:
            logits_MV = ops.einsum("md,vd->mv", x_MD, ops.cast(self.embeddings, self.compute_dtype))
        else:
            logits_MV = ops.matmul(x_MD, ops.cast(self.reverse_embeddings, self.compute_dtype))
        leading = ops.shape(hidden)[:-1]
        return ops.cast(ops.reshape(logits_MV, (*leading, self.vocabulary_size)), "float32")

    def product_operands(self, hidden):
        """What `project` multiplies, for a caller that forms the logits piece by piece.

        Returns:
            hidden, as it enters the product; the output matrix; the axis of that matrix which is the vocabulary; and
            whether the matrix trains.
        """
        matrix = self.embeddings if self.tie_word_embeddings else self.reverse_embeddings
        return hidden, matrix.value, 0 if self.tie_word_embeddings else 1, matrix.trainable

    def get_config(self) -> dict:
        """Constructor arguments."""
        return backend.layer_config(self) | {
            "vocabulary_size": self.vocabulary_size,
            "hidden_dim": self.hidden_dim,
            "tie_word_embeddings": self.tie_word_embeddings,
            "embedding_initializer_range": self.embedding_initializer_range,
            "output_initializer_range": self.output_initializer_range,
            "seed": self.seed,
        }
