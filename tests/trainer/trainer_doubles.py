"""Small models, rows in memory and an observer that remembers, for the trainer's tests."""

from __future__ import annotations

import json

import numpy as np

from llama_exp.trainer.step import StepResult


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


class CountingStep:
    """Stands for `TrainStep` where only the loop matters: every step adds to each weight, nothing is compiled."""

    def __init__(self, backbone, optimizer, **_):
        self._variables = backbone.trainable_variables
        optimizer.build(self._variables)
        self._optimizer = optimizer

    def __call__(self, batch):
        for variable in self._variables:
            variable.assign(variable + 0.01)
        self._optimizer.iterations.assign(self._optimizer.iterations + 1)
        step = int(np.asarray(self._optimizer.iterations))
        return StepResult(3.0 * 0.7**step, 1.0, 0.1, True, 1.0)


class WeightsEvaluation:
    """Stands for `Evaluation`: the loss grows with the weights."""

    def __init__(self, backbone, examples, **_):
        self._variables = backbone.trainable_variables

    def __call__(self, stop=lambda: False):
        if stop():
            return None
        return 10.0 + sum(float(np.asarray(variable).sum()) for variable in self._variables) / 100, 2.0
