"""Where every variable of a model lies in a Hugging Face checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from llama_exp.architecture import EMBEDDINGS, FINAL_NORM, REVERSE_EMBEDDINGS, variable_shapes

EMBEDDINGS_NAME = "model.embed_tokens.weight"
OUTPUT_NAME = "lm_head.weight"
OUTER_NAMES = {EMBEDDINGS: EMBEDDINGS_NAME, FINAL_NORM: "model.norm.weight", REVERSE_EMBEDDINGS: OUTPUT_NAME}
BLOCK_NAMES = {
    "self_attention_layernorm/scale": "input_layernorm",
    "self_attention/query/kernel": "self_attn.q_proj",
    "self_attention/key/kernel": "self_attn.k_proj",
    "self_attention/value/kernel": "self_attn.v_proj",
    "self_attention/attention_output/kernel": "self_attn.o_proj",
    "feedforward_layernorm/scale": "post_attention_layernorm",
    "feedforward_gate_dense/kernel": "mlp.gate_proj",
    "feedforward_intermediate_dense/kernel": "mlp.up_proj",
    "feedforward_output_dense/kernel": "mlp.down_proj",
}


class Place(NamedTuple):
    """Where one variable lies in a file: the tensor's name and shape there, and whether it is turned."""

    name: str
    shape: tuple[int, ...]
    transposed: bool

    @property
    def our_shape(self) -> tuple[int, ...]:
        """The variable's."""
        return self.shape[::-1] if self.transposed else self.shape


def layout(config: Mapping) -> dict[str, Place]:
    """Where every variable of a model lies, by path, in the order of the files."""
    places = {}
    for path, shape in variable_shapes(config).items():
        turned = path.endswith("/kernel") or path == REVERSE_EMBEDDINGS
        places[path] = Place(_stored_name(path), shape[::-1] if turned else shape, turned)
    return places


def _stored_name(path: str) -> str:
    if path in OUTER_NAMES:
        return OUTER_NAMES[path]
    block, _, rest = path.partition("/")
    return f"model.layers.{block.rpartition('_')[2]}.{BLOCK_NAMES[rest]}.weight"
