"""The score of items with one right answer among several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def evaluate_choices(items: Sequence[Mapping[str, Any]], examinee) -> list[dict[str, Any]]:
    """Which choice the model finds likeliest behind the prompt, by its sum and by its sum per byte.

    Args:
        items: `prompt`, `separator`, `choices` (two texts at least) and `answer`, the number of the right one.
        examinee: an `Examinee`.

    Returns:
        Of each item `accuracy` (1 where the right choice has the largest log-probability, else 0),
        `normalized_accuracy` (the same by the log-probability over the UTF-8 bytes of the choice), and what led there:
        `answer`, `chosen`, `log_likelihoods` in nats.

    Source: `acc` and `acc_bytes` of lm-evaluation-harness (`acc_norm` is the second with characters for bytes). Of
    equal ones the first counts, as there.
    """
    pairs = [(item["prompt"], item["separator"] + choice) for item in items for choice in item["choices"]]
    scores = iter(examinee.score(pairs))
    results = []
    for item in items:
        sums = np.array([next(scores)[0] for _ in item["choices"]])
        num_bytes = np.array([len(choice.encode()) for choice in item["choices"]])
        chosen, answer = int(np.argmax(sums)), item["answer"]
        results.append(
            {
                "accuracy": float(chosen == answer),
                "normalized_accuracy": float(np.argmax(sums / num_bytes) == answer),
                "answer": answer,
                "chosen": chosen,
                "log_likelihoods": sums.tolist(),
            }
        )
    return results
