"""Decoding, token by token, against the whole row at once: the same logits.

Shape letters: B rows, P positions of the prompt, N new tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

NEW_TOKENS = 4
LONGEST = 64


def compare_ways(backbone: Any, token_ids: np.ndarray) -> Iterator[tuple[str, float]]:
    """Each way of decoding, and how far its logits are off: root mean square of the difference over that of the logits.

    Args:
        backbone: a `LlamaBackbone`.
        token_ids: integers (B, S), S at least 2; the beginning of a row is enough.
    """
    from llama_exp.models.cpu.decoder import can_decode

    token_ids = token_ids[:1, :LONGEST]
    num_new = min(NEW_TOKENS, token_ids.shape[1] - 1)
    expected = _logits(backbone, backbone({"token_ids": token_ids}))[:, -num_new:]
    yield "with a cache", _relative(_by_cache(backbone, token_ids, num_new), expected)
    if can_decode(backbone, len(token_ids)):
        yield "with a cache, kernels for a CPU", _relative(_by_kernels(backbone, token_ids, num_new), expected)


def _by_cache(backbone: Any, token_ids: np.ndarray, num_new: int) -> np.ndarray:
    length = token_ids.shape[1]
    prompt = length - num_new
    cache = backbone.new_cache(len(token_ids), length)
    _, cache = backbone.call_with_cache(token_ids[:, :prompt], cache, 0)
    logits = []
    for index in range(prompt, length):
        hidden, cache = backbone.call_with_cache(token_ids[:, index : index + 1], cache, index)
        logits.append(_logits(backbone, hidden))
    return np.concatenate(logits, axis=1)


def _by_kernels(backbone: Any, token_ids: np.ndarray, num_new: int) -> np.ndarray:
    from llama_exp.models.cpu.decoder import CpuDecoder

    prompt = token_ids.shape[1] - num_new
    cache = backbone.new_cache(len(token_ids), prompt)
    _, cache = backbone.call_with_cache(token_ids[:, :prompt], cache, 0)
    decoder = CpuDecoder(backbone, cache, num_new, np.zeros(len(token_ids), np.int64))
    return np.stack([decoder.step(token_ids[:, index]) for index in range(prompt, token_ids.shape[1])], axis=1)


def _logits(backbone: Any, hidden: Any) -> np.ndarray:
    return np.asarray(backbone.token_embedding.project(hidden)).astype(np.float32)


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    size = math.sqrt(float(np.mean(np.square(expected, dtype=np.float64))))
    error = math.sqrt(float(np.mean(np.square(found.astype(np.float64) - expected))))
    return error / size if size else error
