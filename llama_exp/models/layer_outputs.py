"""What a model computes between its input and its output.

Shape letters: B batch, S positions, D hidden_dim, M = B * S rows, V vocabulary.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from llama_exp.models.attention import attention_bias


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
