"""New layers of a backbone, with initial values and without adapters: as its `quantization` has them, or of floats."""

from __future__ import annotations

from functools import partial

from llama_exp.models.decoder import TransformerDecoder
from llama_exp.models.embedding import TokenEmbedding
from llama_exp.models.linear import Linear
from llama_exp.models.quantized.embedding import QuantizedTokenEmbedding
from llama_exp.models.quantized.linear import QuantizedLinear


def new_token_embedding(backbone) -> TokenEmbedding:
    """The token embedding of a `LlamaBackbone`, which it does not have yet or exchanges."""
    initializer_range = backbone.embedding_initializer_range
    kind = partial(TokenEmbedding, embedding_initializer_range=initializer_range, seed=backbone.seed)
    if backbone.quantization is not None:
        kind = partial(QuantizedTokenEmbedding, quantization=backbone.quantization)
    sizes = (backbone.vocabulary_size, backbone.hidden_dim, backbone.tie_word_embeddings)
    layer = kind(*sizes, dtype=backbone.dtype_policy, name="token_embedding")
    layer.build()
    return layer


def new_block(backbone, index: int) -> TransformerDecoder:
    """Its decoder block number `index`, likewise."""
    linear = partial(Linear, initializer_range=backbone.initializer_range, seed=backbone.seed)
    if backbone.quantization is not None:
        linear = partial(QuantizedLinear, quantization=backbone.quantization)
    sizes = (backbone.intermediate_dim, backbone.num_query_heads, backbone.num_key_value_heads)
    options = (backbone.layer_norm_epsilon, backbone.dropout, linear)
    block = TransformerDecoder(*sizes, *options, dtype=backbone.dtype_policy, name=f"transformer_layer_{index}")
    block.build((None, backbone.hidden_dim))
    return block
