"""Choosing the next token from logits.

Shape letters: B batch, V vocabulary, C candidate tokens (top_k of V, or all), N steps.

A token is drawn by inverting the cumulative distribution at one uniform number per row and step. Those numbers are
made on the host, so that a seed means the same on every backend and a row's text does not depend on the other rows.
"""

from __future__ import annotations

import math
import numbers
from typing import NamedTuple

import numpy as np
from keras import ops

from llama_exp import recipe

# Uniform numbers stay this far below 1: their product with the total weight then rounds to less than the total.
MAX_UNIFORM = recipe.SAMPLING["max_uniform"]


class Sampler(NamedTuple):
    """Which computation chooses tokens; one compiled function each. The numbers themselves are inputs.

    num_tokens: only ids below it are candidates. greedy: the likeliest token. top_k: only the k likeliest are
    candidates, None for all. nucleus: whether the candidates are cut at a cumulative probability. holes: ids below
    num_tokens that are no candidates either.
    """

    num_tokens: int
    greedy: bool
    top_k: int | None
    nucleus: bool
    holes: tuple[int, ...] = ()


def sampler(
    temperature: float, top_k: int | None, top_p: float | None, num_tokens: int, holes: tuple[int, ...] = ()
) -> Sampler:
    """Checks the arguments of `LlamaCausalLM.generate` that choose tokens.

    Args:
        temperature: 0: greedy.
        top_k: None: all tokens.
        top_p: None: all tokens.
        num_tokens: ids from here on mean nothing; a model's vocabulary may be larger than its tokenizer's.
        holes: ids below it that mean nothing.

    Raises:
        ValueError: a value is out of range, or top_k or top_p is given for greedy decoding, where it does nothing.
    """
    if not isinstance(temperature, numbers.Real) or not math.isfinite(temperature) or temperature < 0:
        raise ValueError(f"temperature={temperature!r} must be a number of at least 0 (0: greedy).")
    if top_k is not None and (not isinstance(top_k, numbers.Integral) or isinstance(top_k, bool) or top_k < 1):
        raise ValueError(f"top_k={top_k!r} must be a whole number of at least 1, or None for all tokens.")
    if top_p is not None and (not isinstance(top_p, numbers.Real) or not 0 < top_p <= 1):
        raise ValueError(f"top_p={top_p!r} must be in (0, 1], or None for all tokens.")
    if temperature == 0:
        useless = [f"{name}={value}" for name, value in (("top_k", top_k), ("top_p", top_p)) if value is not None]
        if useless:
            raise ValueError(f"{' and '.join(useless)} have no effect at temperature=0 (greedy). Set a temperature.")
        return Sampler(num_tokens, greedy=True, top_k=None, nucleus=False, holes=holes)
    all_tokens = top_k is None or top_k >= num_tokens
    nucleus = top_p is not None and top_p < 1
    kept = None if all_tokens else int(top_k)
    return Sampler(num_tokens, greedy=False, top_k=kept, nucleus=nucleus, holes=holes)


def is_candidate(kind: Sampler) -> np.ndarray:
    """Which ids below `num_tokens` stand for a token, (num_tokens,) bool."""
    found = np.ones(kind.num_tokens, bool)
    found[list(kind.holes)] = False
    return found


def uniform_numbers(seed: int, num_steps: int, num_rows: int) -> np.ndarray:
    """Uniform numbers in [0, MAX_UNIFORM], (N, B) float32; each depends on seed, row and step only."""
    rows = [np.random.default_rng([seed, row]).random(num_steps) for row in range(num_rows)]
    return (np.stack(rows, axis=1) * MAX_UNIFORM).astype(np.float32)


def choose(kind: Sampler, logits_BV, uniform_B, temperature, top_p):
    """One token per row.

    With p = softmax(logits / temperature) over the candidates, likeliest first, a nucleus keeps the shortest prefix
    whose probability reaches top_p (Holtzman et al. 2020, arXiv:1904.09751); the token is the first at which the
    cumulative probability of what is kept exceeds the uniform number.

    Args:
        kind: from `sampler`.
        logits_BV: (B, V) float32.
        uniform_B: (B,) float32, from `uniform_numbers`.
        temperature: float32 scalar above 0; unused if greedy.
        top_p: float32 scalar; used for a nucleus.

    Returns:
        (B,) int32.
    """
    logits_BV = logits_BV[:, : kind.num_tokens]
    if kind.holes:
        logits_BV = ops.where(ops.convert_to_tensor(is_candidate(kind)), logits_BV, -math.inf)
    if kind.greedy:
        return ops.cast(ops.argmax(logits_BV, axis=-1), "int32")
    candidates_BC = None
    if kind.top_k is not None or kind.nucleus:
        logits_BV, candidates_BC = ops.top_k(logits_BV, kind.top_k or kind.num_tokens, sorted=True)
    # The maximum goes first: logits / temperature alone overflows at small temperatures.
    weights_BC = ops.exp((logits_BV - ops.max(logits_BV, axis=-1, keepdims=True)) / temperature)
    cumulative_BC = ops.cumsum(weights_BC, axis=-1)
    if kind.nucleus:
        before_BC = cumulative_BC - weights_BC
        weights_BC = ops.where(before_BC < top_p * cumulative_BC[:, -1:], weights_BC, 0.0)
        cumulative_BC = ops.cumsum(weights_BC, axis=-1)
    reached_BC = cumulative_BC <= uniform_B[:, None] * cumulative_BC[:, -1:]
    index_B = ops.sum(ops.cast(reached_BC, "int32"), axis=-1)
    if candidates_BC is None:
        return index_B
    return ops.cast(ops.take_along_axis(candidates_BC, index_B[:, None], axis=-1)[:, 0], "int32")
