"""Quantization of 135M parameters in memory, and a forward pass over the result, beside keras_hub and transformers.

    pip install -c constraints.txt -e ".[bench]"
    python benchmarks/quantize.py     # 1 x 512 tokens: the hidden states of all, the logits of the last

Every contender has random weights of the same shape and computes in bfloat16. A child process builds it, quantizes it
(timed), calls it once (compilation included) and times single calls. `int8` is integer weights and activations,
`int8_weight_only`, `int4` (a scale per 32 inputs) and `float8` weights alone; keras_hub has its own int8, of weights
and activations. Ours is compiled as a run does it (`runtime.jit=auto`), keras_hub plainly and by XLA. The ratio is to
our own bfloat16: above 1, the contender is slower. Peak memory covers the whole process, the floating-point model
before quantizing included. The roof is the rate of a product of bfloat16, whatever the contender multiplies.
"""

from __future__ import annotations

import contest
import numpy as np
import peers

SHAPE = peers.SMOLLM2_135M
LENGTH = 512
OWN_BFLOAT16 = "llama_exp tensorflow none"
# <library> <backend> <quantization> <compiler>
CONTENDERS = [
    OWN_BFLOAT16,
    "llama_exp tensorflow int8",
    "llama_exp tensorflow int8_weight_only",
    "llama_exp tensorflow int4",
    "llama_exp tensorflow float8",
    "keras_hub tensorflow none plain",
    "keras_hub tensorflow none xla",
    "keras_hub tensorflow int8 plain",
    "keras_hub tensorflow int8 xla",
    "transformers torch none eager",
]
OUR_MODES = {
    "int8": {"mode": "int8"},
    "int8_weight_only": {"mode": "int8", "quantize_activations": False},
    "int4": {"mode": "int4"},
    "float8": {"mode": "float8"},
}


def forward_flops() -> float:
    """2 operations per number and token, the output matrix for one token, and causal attention."""
    attention = 4 * SHAPE["num_layers"] * SHAPE["hidden_dim"] * LENGTH**2 / 2
    return 2.0 * (LENGTH * peers.block_parameters(SHAPE) + peers.table_parameters(SHAPE)) + attention


def llama_exp_forward(model, quantization, _):
    from llama_exp import backend

    backbone = model.backbone
    seconds = contest.seconds(lambda: backbone.quantize(**OUR_MODES[quantization])) if quantization != "none" else 0.0
    jit, _ = backend.resolve_jit("auto", backbone.compute_dtype)

    def forward(token_ids):
        hidden = backbone({"token_ids": token_ids})
        return hidden, backbone.token_embedding.project(hidden[:, -1])

    return seconds, backend.compiled(forward, backbone.variables, [], jit)


def keras_hub_forward(model, quantization, compiler):
    import tensorflow as tf

    backbone = model.backbone
    seconds = contest.seconds(lambda: backbone.quantize(quantization)) if quantization != "none" else 0.0

    def forward(token_ids):
        hidden = backbone({"token_ids": token_ids, "padding_mask": tf.ones_like(token_ids)})
        return hidden, backbone.token_embedding(hidden[:, -1], reverse=True)

    return seconds, tf.function(forward, jit_compile=compiler == "xla")


def transformers_forward(model, *_):
    import torch

    model.eval()

    def forward(token_ids):
        with torch.inference_mode():
            output = model(input_ids=torch.from_numpy(token_ids).long(), output_hidden_states=True, logits_to_keep=1)
        return output.hidden_states[-1], output.logits

    return 0.0, forward


FORWARDS = {"llama_exp": llama_exp_forward, "keras_hub": keras_hub_forward, "transformers": transformers_forward}


def child(contender: str, num_calls: int) -> dict:
    """Builds, quantizes, calls and times one contender in this process."""
    library, backend, quantization, *compiler = contender.split()
    contest.use(backend)
    model = peers.MODELS[library](SHAPE, "bfloat16")
    quantize_seconds, forward = FORWARDS[library](model, quantization, *compiler or [None])
    token_ids = np.random.default_rng(0).integers(0, SHAPE["vocabulary_size"], (1, LENGTH)).astype(np.int32)

    def call():
        hidden, logits = forward(token_ids)
        found = tuple(hidden.shape), logits.shape[-1]
        if found != ((1, LENGTH, SHAPE["hidden_dim"]), SHAPE["vocabulary_size"]):
            raise RuntimeError(f"{contender} gave hidden states and logits of {found}")
        return [float(value[0, 0, 0]) if len(value.shape) == 3 else float(value[0, 0]) for value in (hidden, logits)]

    first_call = contest.seconds(call)
    return {
        "seconds": [contest.seconds(call) for _ in range(num_calls)],
        "quantize_seconds": quantize_seconds,
        "first_call": first_call,
        "peak_mib": contest.peak_mib(),
        "roof": contest.product_rate(library, "bfloat16"),
    }


def main() -> None:
    """Prints the table."""
    parser = contest.parser(__doc__)
    parser.add_argument("--calls", type=int, default=8, help="timed per process")
    options = parser.parse_args()
    if options.child:
        contest.answer(child(options.child, options.calls))
        return
    flops = forward_flops()
    columns = {
        "forward ms": lambda name, row: f"{row['seconds'] * 1e3:.0f}",
        "quantizing s": lambda name, row: f"{row['quantize_seconds']:.2f}" if row["quantize_seconds"] else "",
        "first call s": lambda name, row: f"{row['first_call']:.1f}",
        "roof GFLOP/s": lambda name, row: f"{row['roof'] / 1e9:.0f}",
        "share of roof": lambda name, row: f"{flops / row['seconds'] / row['roof']:.2f}",
    }
    results = contest.measure(contest.chosen(CONTENDERS, options.only), options.rounds)
    contest.report(results, columns, reference=OWN_BFLOAT16, ratio="time / our bfloat16")
    contest.end(results)


if __name__ == "__main__":
    main()
