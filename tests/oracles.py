"""Independent answers: a NumPy Llama of our own, and our weights inside keras_hub's and transformers' models.

Nothing here uses `llama_exp`'s tensor code. Tolerances of the suite stand here, once; no test widens them.
"""

from __future__ import annotations

import numpy as np

from llama_exp.architecture import CONFIG_KEYS

TOLERANCE = 1e-4  # hidden states and logits, float32
EXACT_TOLERANCE = 1e-5  # the same computation in another order, float32


def arrays(backbone) -> dict[str, np.ndarray]:
    """Every variable by path, float64."""
    from keras import ops

    return {v.path: np.asarray(ops.convert_to_numpy(ops.cast(v.value, "float32")), "float64") for v in backbone.weights}


def randomize(backbone, seed: int = 0, scale: float = 0.2) -> None:
    """Weights large enough that a wrong head, mask or scale shows; norms around 1."""
    from llama_exp.lora.dora import is_derived

    generator = np.random.default_rng(seed)
    for variable in backbone.weights:
        if not is_derived(variable):
            values = generator.normal(size=tuple(variable.shape)) * scale
            variable.assign((values + (variable.path.endswith("scale"))).astype("float32"))
    kernels = arrays(backbone)
    for variable in filter(is_derived, backbone.weights):
        kernel = kernels[variable.path.replace("adapter/kernel_squares", "kernel")]
        variable.assign(np.square(kernel).sum(0))


def numpy_frequencies(config: dict) -> np.ndarray:
    """Angles per position, written as the case distinction of Meta's reference code."""
    head_dim = config["hidden_dim"] // config["num_query_heads"]
    frequencies = []
    for i in range(0, head_dim, 2):
        frequency = 1 / config["rope_max_wavelength"] ** (i / head_dim)
        factor = config["rope_frequency_adjustment_factor"]
        if factor is not None:
            low, high = config["rope_low_freq_factor"], config["rope_high_freq_factor"]
            length, wavelength = config["rope_pretraining_sequence_length"], 2 * np.pi / frequency
            if wavelength > length / low:
                frequency /= factor
            elif wavelength >= length / high:
                smooth = (length / wavelength - low) / (high - low)
                frequency = (1 - smooth) * frequency / factor + smooth * frequency
        frequencies.append(frequency)
    return np.array(frequencies) / config["rope_position_scaling_factor"]


def numpy_hidden(config: dict, weights: dict, token_ids, visible=None, position_ids=None, deltas=None) -> np.ndarray:
    """Hidden states (B, S, D) in float64, one row, head and position at a time.

    Args:
        config: `LlamaBackbone.get_config()`.
        weights: from `arrays`.
        token_ids: (B, S).
        visible: (B, S, T) bool; None: causal.
        position_ids: (B, S); None: 0 .. S-1.
        deltas: added to kernels, by path of the linear layer.
    """
    token_ids = np.asarray(token_ids)
    rows = []
    for row, ids in enumerate(token_ids):
        positions = np.arange(len(ids)) if position_ids is None else np.asarray(position_ids)[row]
        mask = np.tril(np.ones((len(ids), len(ids)), bool)) if visible is None else np.asarray(visible)[row]
        rows.append(_numpy_row(config, weights, deltas or {}, ids, positions, mask))
    return np.stack(rows)


def numpy_logits(config: dict, weights: dict, hidden) -> np.ndarray:
    if config["tie_word_embeddings"]:
        return hidden @ weights["token_embedding/embeddings"].T
    return hidden @ weights["token_embedding/reverse_embeddings"]


def _numpy_row(config, weights, deltas, ids, positions, mask):
    epsilon = config["layer_norm_epsilon"]

    def norm(x, path):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weights[f"{path}/scale"]

    def linear(x, path):
        return x @ (weights[f"{path}/kernel"] + deltas.get(path, 0))

    x = weights["token_embedding/embeddings"][ids]
    for layer in range(config["num_layers"]):
        block = f"transformer_layer_{layer}"
        normed = norm(x, f"{block}/self_attention_layernorm")
        q, k, v = (linear(normed, f"{block}/self_attention/{name}") for name in ("query", "key", "value"))
        heads = _numpy_heads(config, q, k, v, positions, mask)
        x = x + linear(heads, f"{block}/self_attention/attention_output")
        normed = norm(x, f"{block}/feedforward_layernorm")
        gate = linear(normed, f"{block}/feedforward_gate_dense")
        up = linear(normed, f"{block}/feedforward_intermediate_dense")
        x = x + linear(gate / (1 + np.exp(-gate)) * up, f"{block}/feedforward_output_dense")
    return norm(x, "sequence_output_layernorm")


def _numpy_heads(config, q, k, v, positions, mask):
    head_dim = config["hidden_dim"] // config["num_query_heads"]
    group = config["num_query_heads"] // config["num_key_value_heads"]
    angles = positions[:, None] * numpy_frequencies(config)
    turn = np.exp(1j * angles)  # a pair (a, b) is the complex number a + ib

    def rotated(x):
        half = head_dim // 2
        y = (x[:, :half] + 1j * x[:, half:]) * turn
        return np.concatenate([y.real, y.imag], axis=-1)

    outputs = []
    for head in range(config["num_query_heads"]):
        shared = head // group
        own = slice(head * head_dim, (head + 1) * head_dim)
        theirs = slice(shared * head_dim, (shared + 1) * head_dim)
        scores = rotated(q[:, own]) @ rotated(k[:, theirs]).T / np.sqrt(head_dim)
        scores = np.where(mask, scores, -np.inf)
        scores[~mask.any(-1)] = 0.0
        exponentials = np.exp(scores - scores.max(-1, keepdims=True))
        outputs.append(exponentials / exponentials.sum(-1, keepdims=True) @ v[:, theirs])
    return np.concatenate(outputs, axis=-1)


def keras_hub_backbone(backbone):
    """keras_hub's `LlamaBackbone` with the architecture and weights of ours."""
    import keras_hub

    other = keras_hub.models.LlamaBackbone(**{key: getattr(backbone, key) for key in CONFIG_KEYS})
    ours = arrays(backbone)
    used = set()
    for variable in other.weights:
        path = variable.path
        variable.assign(ours[path].reshape(tuple(variable.shape)).astype("float32"))
        used.add(path)
    assert used == set(ours), used ^ set(ours)
    return other


HF_NAMES = {
    "self_attention/query/kernel": "self_attn.q_proj",
    "self_attention/key/kernel": "self_attn.k_proj",
    "self_attention/value/kernel": "self_attn.v_proj",
    "self_attention/attention_output/kernel": "self_attn.o_proj",
    "feedforward_gate_dense/kernel": "mlp.gate_proj",
    "feedforward_intermediate_dense/kernel": "mlp.up_proj",
    "feedforward_output_dense/kernel": "mlp.down_proj",
    "self_attention_layernorm/scale": "input_layernorm",
    "feedforward_layernorm/scale": "post_attention_layernorm",
}


def transformers_model(backbone):
    """transformers' `LlamaForCausalLM` with the architecture and weights of ours, in eval mode."""
    import torch
    import transformers

    config = backbone.get_config()
    model = transformers.LlamaForCausalLM(_transformers_config(config))
    state = {}
    for path, array in arrays(backbone).items():
        tensor = torch.tensor(array.T.copy() if path.endswith("kernel") else array, dtype=torch.float32)
        if path == "token_embedding/embeddings":
            state["model.embed_tokens.weight"] = tensor
            if config["tie_word_embeddings"]:
                state["lm_head.weight"] = tensor
        elif path == "token_embedding/reverse_embeddings":
            state["lm_head.weight"] = tensor.T.contiguous()
        elif path == "sequence_output_layernorm/scale":
            state["model.norm.weight"] = tensor
        else:
            block, _, rest = path.partition("/")
            state[f"model.layers.{block.rpartition('_')[2]}.{HF_NAMES[rest]}.weight"] = tensor
    model.load_state_dict(state, strict=True)
    return model.eval()


def _transformers_config(config):
    import transformers

    rope = {"rope_theta": config["rope_max_wavelength"], "rope_type": "default"}
    if config["rope_frequency_adjustment_factor"] is not None:
        rope |= {
            "rope_type": "llama3",
            "factor": config["rope_frequency_adjustment_factor"],
            "low_freq_factor": config["rope_low_freq_factor"],
            "high_freq_factor": config["rope_high_freq_factor"],
            "original_max_position_embeddings": config["rope_pretraining_sequence_length"],
        }
    elif config["rope_position_scaling_factor"] != 1.0:
        rope |= {"rope_type": "linear", "factor": config["rope_position_scaling_factor"]}
    return transformers.LlamaConfig(
        vocab_size=config["vocabulary_size"],
        hidden_size=config["hidden_dim"],
        intermediate_size=config["intermediate_dim"],
        num_hidden_layers=config["num_layers"],
        num_attention_heads=config["num_query_heads"],
        num_key_value_heads=config["num_key_value_heads"],
        rms_norm_eps=config["layer_norm_epsilon"],
        tie_word_embeddings=config["tie_word_embeddings"],
        rope_parameters=rope,
        attn_implementation="eager",
    )
