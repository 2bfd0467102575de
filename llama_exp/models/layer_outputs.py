"""What a model computes between its input and its output.

Shape letters: B batch, S positions, D hidden_dim, M = B * S rows, V vocabulary, N query heads, K key/value heads,
H head_dim.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from llama_exp.models.attention import attention_bias
from llama_exp.models.fused import rotate_heads


def layer_outputs(model, token_ids_BS: np.ndarray) -> dict[str, np.ndarray]:
    """Hidden states after the token embedding, every block and the final norm, and the logits.

    The layers are called one after the other as `LlamaBackbone.call` does it; the logits are the model's own.

    Args:
        model: a `LlamaCausalLM`.
        token_ids_BS: integers; no padding.

    Returns:
        By path of the layer, in order: (B, S, D) float32; at last `logits`, (B, S, V) float32.
    """
    backbone, num_positions = model.backbone, token_ids_BS.shape[1]
    token_ids_BS = ops.convert_to_tensor(token_ids_BS, dtype="int32")
    bias_B1ST = attention_bias(num_positions, num_positions)
    rope = backbone.rope(ops.arange(num_positions, dtype="int32")[None, :])
    x_MD = backbone.embed(token_ids_BS)
    outputs = {backbone.token_embedding.path: x_MD}
    for block in backbone.transformer_layers:
        x_MD = block(x_MD, rope=rope, bias_B1ST=bias_B1ST)[0]
        outputs[block.path] = x_MD
    outputs[backbone.layer_norm.path] = backbone.layer_norm(x_MD)
    shape = (-1, num_positions, backbone.hidden_dim)
    arrays = {path: ops.convert_to_numpy(ops.cast(x, "float32")).reshape(shape) for path, x in outputs.items()}
    return arrays | {"logits": ops.convert_to_numpy(model({"token_ids": token_ids_BS}))}


def attention_scores(model, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every query's product with every key before the softmax, later ones included.

    Args:
        model: a `LlamaCausalLM`.
        outputs: its `layer_outputs`.

    Returns:
        By path of the attention, in order: (B, N, S, S) float32.
    """
    backbone, scores = model.backbone, {}
    x_BSD = outputs[backbone.token_embedding.path]
    rope = backbone.rope(ops.arange(x_BSD.shape[1], dtype="int32")[None, :])
    for block in backbone.transformer_layers:
        attention, num_groups = block.self_attention, backbone.num_key_value_heads
        x_MD = ops.cast(np.reshape(x_BSD, (-1, backbone.hidden_dim)), backbone.compute_dtype)
        x_MD = block.self_attention_layernorm(x_MD)
        q_BNSH = rotate_heads(attention.query(x_MD), rope.cos_query, rope.sin_query, backbone.num_query_heads)
        k_BKSH = rotate_heads(attention.key(x_MD), rope.cos_key, rope.sin_key, num_groups)
        k_BNSH = ops.repeat(k_BKSH, backbone.num_query_heads // num_groups, axis=1)
        scores_BNSS = ops.matmul(q_BNSH, ops.transpose(k_BNSH, (0, 1, 3, 2)))
        scores[attention.path] = ops.convert_to_numpy(ops.cast(scores_BNSS, "float32"))
        x_BSD = outputs[block.path]
    return scores
