"""Small models, rows in memory and an observer that remembers, for the trainer's tests."""

from __future__ import annotations

import json

import numpy as np


class MemoryExamples:
    """Random rows of uneven length, as `llama_exp.dataset.Examples` gives them."""

    def __init__(self, num_rows: int, vocabulary_size: int, length: int, seed: int):
        rng = np.random.default_rng(seed)
        shape = (num_rows, length)
        # A pattern to learn: each token is followed by the next number.
        starts = rng.integers(0, vocabulary_size, (num_rows, 1))
        tokens = (starts + np.arange(length + 1)) % vocabulary_size
        counted = np.arange(length) < rng.integers(1, length + 1, (num_rows, 1))
        self.rows = {
            "token_ids": tokens[:, :-1].astype("int32"),
            "position_ids": np.broadcast_to(np.arange(length, dtype="int32"), shape).copy(),
            "segment_ids": counted.astype("int32"),
            "padding_mask": counted.astype("int32"),
            "labels": tokens[:, 1:].astype("int32"),
            "loss_mask": counted.astype("float32"),
        }

    def __len__(self):
        return len(self.rows["token_ids"])

    def batch(self, indices):
        return {key: value[indices] for key, value in self.rows.items()}


class Recorder:
    """Remembers what it was told; cut back at a restore, as the metrics file is."""

    def __init__(self, at_row=None):
        self.rows, self.samples, self.facts, self.status = [], [], None, None
        self.evaluations = []
        self._at_row = at_row or (lambda row: None)

    def on_start(self, facts):
        self.facts = facts

    def on_metrics(self, row):
        self.rows.append(row)
        self._at_row(row)

    def on_evaluation(self, row):
        self.evaluations.append(row)

    def on_sample(self, step, prompt, text):
        self.samples.append((step, prompt, text))

    def on_finish(self, status):
        self.status = status

    def state(self):
        texts = {"rows": json.dumps(self.rows), "evaluations": json.dumps(self.evaluations)}
        return texts | {"samples": self.samples}  # as text: a gradient norm may be infinite

    def restore(self, state):
        self.rows, self.evaluations = json.loads(state["rows"]), json.loads(state["evaluations"])
        self.samples = [tuple(sample) for sample in state["samples"]]


class ScriptedEvaluations:
    """Evaluations whose figure at each step is given: what `llama_exp.evaluation` is to the trainer."""

    def __init__(self, scores, every=1, act=None):
        self._scores, self._every, self._act = scores, every, act or (lambda step: None)
        self.steps = []

    def is_due(self, step, is_last):
        return is_last or step % self._every == 0

    def run(self, step, stop, tell_phase):
        tell_phase("evaluating fake")
        self._act(step)
        if stop():
            return None
        self.steps.append(step)
        score = self._scores[step]
        return [{"step": step, "name": "my.task", "kind": "set", "score": score, "items": 4, "fingerprint": "f"}]
