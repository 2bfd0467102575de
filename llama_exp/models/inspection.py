"""What a backbone computes between its input and its output.

Shape letters: B batch, S positions, D hidden_dim, M = B * S rows.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from llama_exp.models.attention import attention_bias


def layer_outputs(backbone, token_ids_BS: np.ndarray) -> dict[str, np.ndarray]:
    """Hidden states after the token embedding, every block and the final norm.

    The layers are called one after the other as `LlamaBackbone.call` does it; the last entry is what it returns.

    Args:
        backbone: a `LlamaBackbone`.
        token_ids_BS: integers; no padding.

    Returns:
        By path of the layer, in order: (B, S, D) float32.
    """
    num_positions = token_ids_BS.shape[1]
    bias_B1ST = attention_bias(num_positions, num_positions)
    rope = backbone._rope(ops.arange(num_positions, dtype="int32")[None, :])
    x_MD = backbone._embed(ops.convert_to_tensor(token_ids_BS, dtype="int32"))
    outputs = {backbone.token_embedding.path: x_MD}
    for block in backbone.transformer_layers:
        x_MD = block(x_MD, rope=rope, bias_B1ST=bias_B1ST)[0]
        outputs[block.path] = x_MD
    outputs[backbone.layer_norm.path] = backbone.layer_norm(x_MD)
    shape = (*token_ids_BS.shape, backbone.hidden_dim)
    return {path: ops.convert_to_numpy(ops.cast(x, "float32")).reshape(shape) for path, x in outputs.items()}
