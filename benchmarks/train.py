"""Training steps of llama_exp beside keras_hub's and transformers', one process at a time, in turn.

    pip install -c constraints.txt -e ".[bench]"
    python benchmarks/train.py pretrain   # 15M parameters from scratch: vocabulary 32000, 6 layers, 288 wide, 8 x 256
    python benchmarks/train.py lora       # LoRA rank 8 on query and value of 135M parameters, 2 x 256

Every contender trains on the same random tokens with AdamW. A child process builds it, makes a first step (compilation
included), warms up, and times single steps; contenders take turns, so that a busy machine hits all alike. The table
shows the median over all their steps, the ratio to ours, the seconds from the start of the process to the end of the
first step, peak memory, and the share of the roof: the arithmetic that the step needs over the rate of a matrix product
in the same type, measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

STARTED = time.time()
WORKS = {
    "pretrain": {
        "shape": {
            "vocabulary_size": 32000,
            "num_layers": 6,
            "num_query_heads": 6,
            "hidden_dim": 288,
            "intermediate_dim": 768,
            "num_key_value_heads": 6,
        },
        "tie": True,
        "batch_size": 8,
        "length": 256,
        "rank": 0,
    },
    "lora": {
        "shape": {
            "vocabulary_size": 49152,
            "num_layers": 30,
            "num_query_heads": 9,
            "hidden_dim": 576,
            "intermediate_dim": 1536,
            "num_key_value_heads": 3,
        },
        "tie": True,
        "batch_size": 2,
        "length": 256,
        "rank": 8,
    },
}
# The settings worth trying: both backends, with and without XLA, both types. `--only` chooses.
CONTENDERS = [
    "llama_exp tensorflow float32 plain",
    "llama_exp tensorflow mixed_bfloat16 xla",
    "llama_exp jax float32 xla",
    "llama_exp jax mixed_bfloat16 xla",
    "keras_hub tensorflow float32 plain",
    "keras_hub tensorflow float32 xla",
    "keras_hub tensorflow bfloat16 plain",
    "keras_hub jax float32 xla",
    "transformers torch float32 plain",
    "transformers torch bfloat16 plain",
]


def matrix_parameters(shape: dict) -> int:
    """Numbers in matrices that every token is multiplied with, the output matrix included."""
    width, heads = shape["hidden_dim"], shape["num_query_heads"]
    narrow = width // heads * shape["num_key_value_heads"]
    block = 2 * width * width + 2 * width * narrow + 3 * width * shape["intermediate_dim"]
    return shape["num_layers"] * block + shape["vocabulary_size"] * width


def step_flops(work: dict) -> float:
    """6 operations per trained and 4 per frozen number and token (the adapters' own share is neglected)."""
    shape, tokens = work["shape"], work["batch_size"] * work["length"]
    per_token = (4 if work["rank"] else 6) * matrix_parameters(shape)
    attention = (8 if work["rank"] else 12) * shape["num_layers"] * shape["hidden_dim"] * work["length"] / 2  # causal
    return tokens * (per_token + attention)


def llama_exp_step(work, policy, jit):
    from llama_exp.models import LlamaBackbone
    from llama_exp.optimizer import adamw
    from llama_exp.trainer.step import TrainStep

    backbone = LlamaBackbone(**work["shape"], tie_word_embeddings=work["tie"], dtype=policy)
    if work["rank"]:
        backbone.enable_lora(work["rank"], alpha=16)
    optimizer = adamw(learning_rate=1e-4, weight_decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-8, global_clipnorm=1.0)
    step = TrainStep(backbone, optimizer, chunk_tokens=1024, jit=jit)

    def run(token_ids, labels):
        shape = token_ids.shape
        import numpy as np

        positions = np.broadcast_to(np.arange(shape[1], dtype="int32"), shape)
        batch = {"token_ids": token_ids, "position_ids": positions, "segment_ids": np.ones_like(token_ids)}
        batch |= {"padding_mask": np.ones_like(token_ids), "labels": labels, "loss_mask": np.ones(shape, "float32")}
        return step({key: value[None] for key, value in batch.items()}).loss

    return run


def keras_hub_step(work, policy, jit):
    import keras
    import keras_hub

    keras.config.set_dtype_policy(policy)
    backbone = keras_hub.models.LlamaBackbone(**work["shape"], tie_word_embeddings=work["tie"])
    if work["rank"]:
        backbone.enable_lora(work["rank"])
    model = keras_hub.models.LlamaCausalLM(backbone, preprocessor=None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=0.0, global_clipnorm=1.0)
    model.compile(optimizer=optimizer, loss=loss, jit_compile=jit, sampler="greedy")

    def run(token_ids, labels):
        import numpy as np

        inputs = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
        return float(np.ravel(model.train_on_batch(inputs, labels))[0])

    return run


def transformers_step(work, policy, jit):
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    shape = work["shape"]
    config = transformers.LlamaConfig(
        vocab_size=shape["vocabulary_size"],
        num_hidden_layers=shape["num_layers"],
        num_attention_heads=shape["num_query_heads"],
        hidden_size=shape["hidden_dim"],
        intermediate_size=shape["intermediate_dim"],
        num_key_value_heads=shape["num_key_value_heads"],
        tie_word_embeddings=work["tie"],
    )
    model = transformers.LlamaForCausalLM(config).to(getattr(torch, policy))
    if work["rank"]:
        import peft

        lora = peft.LoraConfig(r=work["rank"], lora_alpha=16, target_modules=["q_proj", "v_proj"])
        model = peft.get_peft_model(model, lora)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
    model.train()

    def run(token_ids, labels):
        logits = model(input_ids=torch.from_numpy(token_ids).long()).logits
        targets = torch.from_numpy(labels).long().reshape(-1)
        loss = torch.nn.functional.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return run


def matmul_rate(library: str, backend: str, policy: str) -> float:
    """Operations per second of the best of a few 1024 x 1024 x 1024 products in the compute type."""
    dtype = "bfloat16" if "bfloat16" in policy else "float32"
    if library == "transformers":
        import torch

        a = torch.randn(1024, 1024).to(getattr(torch, dtype))

        def multiply():
            return torch.matmul(a, a).sum().item()
    else:
        import numpy as np
        from keras import ops

        a = ops.cast(np.random.default_rng(0).normal(size=(1024, 1024)).astype("float32"), dtype)

        def multiply():
            return ops.convert_to_numpy(ops.matmul(a, a)[0, 0])

    times = []
    for _ in range(12):
        start = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times)


def child(work: dict, contender: str, num_steps: int) -> dict:
    """Builds, steps and times one contender in this process."""
    import resource

    import numpy as np

    library, backend, policy, compiler = contender.split()
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run = globals()[f"{library}_step"](work, policy, compiler == "xla")
    generator = np.random.default_rng(0)

    def batch():
        size = (work["batch_size"], work["length"] + 1)
        token_ids = generator.integers(0, work["shape"]["vocabulary_size"], size).astype("int32")
        return token_ids[:, :-1].copy(), token_ids[:, 1:].copy()

    losses = [run(*batch())]
    first_step_seconds = time.time() - STARTED
    losses.append(run(*batch()))
    seconds = []
    for _ in range(num_steps):
        inputs = batch()
        start = time.perf_counter()
        losses.append(run(*inputs))
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds,
        "first_step_seconds": first_step_seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "roof": matmul_rate(library, backend, policy),
        "loss": losses[-1],
    }


def measure(work_name: str, contenders: list[str], rounds: int, num_steps: int) -> dict[str, dict]:
    """All contenders in turn, `rounds` times; the rounds of each put together."""
    results: dict[str, list[dict]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in contenders:
            command = [sys.executable, __file__, work_name, "--child", name, "--steps", str(num_steps)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{name}: failed\n{done.stderr[-800:]}", file=sys.stderr)
                continue
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
            median = statistics.median(results[name][-1]["seconds"])
            print(f"round {number + 1}: {name}: {median:.3f} s a step", file=sys.stderr)
    return {
        name: {
            "seconds": statistics.median([s for run in runs for s in run["seconds"]]),
            **{
                key: statistics.median([run[key] for run in runs]) for key in ("first_step_seconds", "peak_mib", "roof")
            },
        }
        for name, runs in results.items()
        if runs
    }


def show(work: dict, results: dict[str, dict]) -> None:
    """The table, best first."""
    from rich.console import Console
    from rich.table import Table

    ours = min((row["seconds"] for name, row in results.items() if name.startswith("llama_exp")), default=None)
    tokens, flops = work["batch_size"] * work["length"], step_flops(work)
    table = Table("contender", "tokens/s", "ours is faster by", "first step s", "peak MiB", "share of roof")
    for name, row in sorted(results.items(), key=lambda item: item[1]["seconds"]):
        ratio = "" if ours is None else f"{row['seconds'] / ours:.2f} x"
        share = flops / row["seconds"] / row["roof"]
        cells = (f"{tokens / row['seconds']:.0f}", ratio, f"{row['first_step_seconds']:.1f}", f"{row['peak_mib']:.0f}")
        table.add_row(name, *cells, f"{share:.2f}")
    Console(width=120).print(table)


def main() -> None:
    """Runs one work and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--only", default="", help="contenders whose name holds one of these, comma separated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(WORKS[options.work], options.child, options.steps)))
        return
    wanted = [name for name in CONTENDERS if any(part in name for part in options.only.split(","))]
    results = measure(options.work, wanted, options.rounds, options.steps)
    show(WORKS[options.work], results)


if __name__ == "__main__":
    main()
