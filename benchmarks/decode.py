"""Greedy decoding of llama_exp beside keras_hub's and transformers', one process at a time, in turn.

    pip install -c constraints.txt -e ".[bench]"
    python benchmarks/decode.py     # 135M parameters, batch 1, 64 new tokens after 32

Every contender has random weights of the same shape, as bfloat16 or float32, or quantized over bfloat16. A child
process builds it, generates once (compilation included) and times whole calls. The table shows the median over all
rounds, the seconds of the first call, peak memory, and the share of the roof: the bytes of weights that a token needs
over the rate at which this machine sums an array of that size.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import contest
import numpy as np
import peers

SHAPE = peers.SMOLLM2_135M
NUM_WEIGHTS = peers.block_parameters(SHAPE) + peers.table_parameters(SHAPE)
NUM_PROMPT, NUM_NEW = 32, 64
BYTES = {"float32": 4, "bfloat16": 2, "int8_weight_only": 1, "int8": 1, "float8": 1, "int4": 0.5}
# Kinds of weights that are not a type of their own, over bfloat16.
QUANTIZED = {"int8_weight_only": {"mode": "int8", "quantize_activations": False}, "int8": {"mode": "int8"}}
QUANTIZED |= {"int4": {"mode": "int4"}, "float8": {"mode": "float8"}}
CONTENDERS = [
    "llama_exp tensorflow float32",
    "llama_exp tensorflow bfloat16",
    "llama_exp tensorflow int8_weight_only",
    "llama_exp tensorflow int8",
    "llama_exp tensorflow int4",
    "llama_exp tensorflow float8",
    "llama_exp jax float32",
    "llama_exp jax bfloat16",
    "llama_exp jax int8_weight_only",
    "keras_hub tensorflow float32 xla",
    "keras_hub tensorflow bfloat16 xla",
    "keras_hub tensorflow int8 xla",
    "keras_hub jax float32 xla",
    "transformers torch float32 dynamic",
    "transformers torch bfloat16 dynamic",
]


def llama_exp_generate(model):
    return lambda prompt: model.generate(prompt, max_length=NUM_PROMPT + NUM_NEW)


def keras_hub_generate(model):
    model.compile(sampler="greedy", jit_compile=True)
    mask = np.zeros((1, NUM_PROMPT + NUM_NEW), "int32")
    mask[:, :NUM_PROMPT] = 1

    def generate(prompt):
        token_ids = np.zeros_like(mask)
        token_ids[0, :NUM_PROMPT] = prompt
        return model.generate({"token_ids": token_ids, "padding_mask": mask}, stop_token_ids=None)["token_ids"]

    return generate


def transformers_generate(model):
    import torch

    model.eval()

    def generate(prompt):
        ids = torch.from_numpy(prompt).long()[None]
        with torch.inference_mode():
            return model.generate(ids, max_new_tokens=NUM_NEW, min_new_tokens=NUM_NEW, do_sample=False)

    return generate


GENERATORS = {
    "llama_exp": llama_exp_generate,
    "keras_hub": keras_hub_generate,
    "transformers": transformers_generate,
}


def read_rate(num_bytes: int) -> float:
    """Bytes per second at which all cores together sum an array, the best of a few."""
    threads = len(os.sched_getaffinity(0))
    parts = np.array_split(np.ones(num_bytes // 4, np.float32), threads)
    with ThreadPoolExecutor(threads) as pool:
        return num_bytes / min(contest.seconds(lambda: list(pool.map(np.sum, parts))) for _ in range(6))


def child(contender: str, num_calls: int) -> dict:
    """Builds, generates and times one contender in this process."""
    library, backend, weights, *_ = contender.split()
    contest.use(backend)
    model = peers.MODELS[library](SHAPE, "bfloat16" if weights in QUANTIZED else weights)
    if weights in QUANTIZED:
        model.backbone.quantize(**QUANTIZED[weights])
    generate = GENERATORS[library](model)
    prompt = np.random.default_rng(0).integers(0, SHAPE["vocabulary_size"], NUM_PROMPT).astype("int32")
    seconds = [contest.seconds(lambda: np.asarray(generate(prompt))) for _ in range(num_calls + 1)]
    if (size := np.asarray(generate(prompt)).size) != NUM_PROMPT + NUM_NEW:
        raise RuntimeError(f"{contender} made {size} tokens instead of {NUM_PROMPT + NUM_NEW}")
    peak_mib = contest.peak_mib()
    rate = read_rate(int(NUM_WEIGHTS * BYTES[weights]))
    return {"first_call": seconds[0], "seconds": seconds[1:], "peak_mib": peak_mib, "read_rate": rate}


def main() -> None:
    """Prints the table."""
    parser = contest.parser(__doc__)
    parser.add_argument("--calls", type=int, default=5, help="timed per process")
    options = parser.parse_args()
    if options.child:
        contest.answer(child(options.child, options.calls))
        return

    def share(name, row):
        return f"{NUM_NEW / row['seconds'] * NUM_WEIGHTS * BYTES[name.split()[2]] / row['read_rate']:.2f}"

    columns = {
        "new tokens/s": lambda name, row: f"{NUM_NEW / row['seconds']:.1f}",
        "first call s": lambda name, row: f"{row['first_call']:.1f}",
        "roof GB/s": lambda name, row: f"{row['read_rate'] / 1e9:.1f}",
        "share of roof": share,
    }
    results = contest.measure(contest.chosen(CONTENDERS, options.only), options.rounds)
    contest.report(results, columns)
    contest.end(results)


if __name__ == "__main__":
    main()
