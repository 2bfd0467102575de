"""New layers of a backbone, with initial values and without adapters: as its `quantization` has them, or of floats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from llama_exp.architecture import EMBEDDINGS, FINAL_NORM, REVERSE_EMBEDDINGS
from llama_exp.architecture.parametrization import first_value, read_keys
from llama_exp.models.decoder import TransformerDecoder
from llama_exp.models.embedding import TokenEmbedding
from llama_exp.models.linear import Linear
from llama_exp.models.norm import RMSNorm
from llama_exp.models.quantized.embedding import QuantizedTokenEmbedding
from llama_exp.models.quantized.linear import QuantizedLinear


def new_token_embedding(backbone) -> TokenEmbedding:
    """The token embedding of a `LlamaBackbone`, which it does not have yet or exchanges."""
    config = read_keys(backbone)
    kind: Callable[..., TokenEmbedding]
    if backbone.quantization is not None:
        kind = partial(QuantizedTokenEmbedding, quantization=backbone.quantization)
    else:
        kind = partial(
            TokenEmbedding,
            embedding_initializer_range=first_value(config, EMBEDDINGS),
            output_initializer_range=first_value(config, REVERSE_EMBEDDINGS),
            seed=backbone.seed,
        )
    sizes = (backbone.vocabulary_size, backbone.hidden_dim, backbone.tie_word_embeddings)
    layer = kind(*sizes, dtype=backbone.dtype_policy, name="token_embedding")
    layer.build()
    return layer


def new_block(backbone, index: int) -> TransformerDecoder:
    """Its decoder block number `index`, likewise."""
    config = read_keys(backbone)

    def linear(output_dim: int, *, name: str, **options) -> Linear:
        if backbone.quantization is not None:
            return QuantizedLinear(output_dim, quantization=backbone.quantization, name=name, **options)
        return Linear(output_dim, first_value(config, f"/{name}/kernel"), backbone.seed, name=name, **options)

    sizes = (backbone.intermediate_dim, backbone.num_query_heads, backbone.num_key_value_heads)
    options = (backbone.layer_norm_epsilon, backbone.dropout, linear)
    named = {"dtype": backbone.dtype_policy, "name": f"transformer_layer_{index}"}
    block = TransformerDecoder(*sizes, *options, train_norms=backbone.train_norms, **named)
    block.build((None, backbone.hidden_dim))
    return block


def new_final_norm(backbone) -> RMSNorm:
    """Its norm behind the last block."""
    first = first_value(read_keys(backbone), FINAL_NORM)
    options = {"first_scale": first, "train_scale": backbone.train_norms, "dtype": backbone.dtype_policy}
    layer = RMSNorm(backbone.layer_norm_epsilon, **options, name=FINAL_NORM.partition("/")[0])
    layer.build((None, backbone.hidden_dim))
    return layer
