"""Autoregressive decoding with a key-value cache: compiled as one function per shape, or on a CPU token by token.

    prompt in one pass -> cache and logits -> choose a token -> its pass over the cache -> logits -> choose ...

Shape letters: B batch, P prompt slots, N new tokens at most, V vocabulary, T = P + N cache slots, D hidden_dim.

Prompts of different lengths are padded in front, so that all rows write the same cache slot in a step; a row's
positions still count from its first real token (.: padding, x: prompt, o: new):

    slot   0 1 2 3 4 5 6          position   . . 0 1 2 3 4
    row 0  . . x x o o o                     0 1 2 3 4 5 6
    row 1  x x x x o o o
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp.models.sampling import Sampler, choose, is_candidate, uniform_numbers

SMALLEST_BUCKET = 16


class Inputs(NamedTuple):
    """The arrays of one generation.

    token_ids_BP: prompts, padded in front. num_prompt_B: real tokens of each. num_new_B: tokens that each row may get,
    1 .. N. stop_ids: 1-D int32. uniform_NB: float32. temperature, top_p: as in `choose`.
    """

    token_ids_BP: np.ndarray
    num_prompt_B: np.ndarray
    num_new_B: np.ndarray
    stop_ids: np.ndarray
    uniform_NB: np.ndarray
    temperature: float
    top_p: float


class Generator:
    """Continues token sequences with a backbone. Compiled functions are kept and reused.

    Weights are read at each call. Adapters that come or go bring or take variables; then it is compiled anew.
    """

    def __init__(self, backbone):
        self._backbone = backbone
        self._functions = {}
        self._variables = []  # those that the functions were compiled with

    def generate(
        self,
        prompts: list[np.ndarray],
        max_length: int,
        kind: Sampler,
        temperature: float,
        top_p: float | None,
        stop_token_ids: list[int],
        seed: int,
    ) -> list[np.ndarray]:
        """Continues every prompt to `max_length` tokens or to the first stop token, which is kept.

        Args:
            prompts: 1-D int32 arrays, each of at least one and fewer than `max_length` tokens.
            max_length: tokens of prompt and continuation together.
            kind: how tokens are chosen.
            temperature: above 0 unless greedy.
            top_p: None without a nucleus.
            stop_token_ids: tokens that end a row.
            seed: of the random choices.

        Returns:
            Prompt and continuation of each row, 1-D int32 arrays.
        """
        from llama_exp.models.cpu import (
            decoder as cpu_decoder,  # brings Numba, which a model that only trains does without
        )

        num_prompt_B = np.array([len(prompt) for prompt in prompts], np.int32)
        num_new_B = max_length - num_prompt_B
        num_slots, num_steps = bucket(num_prompt_B.max()), bucket(num_new_B.max())
        token_ids_BP = np.zeros((len(prompts), num_slots), np.int32)
        for row, prompt in enumerate(prompts):
            token_ids_BP[row, num_slots - len(prompt) :] = prompt
        inputs = Inputs(
            token_ids_BP,
            num_prompt_B,
            num_new_B.astype(np.int32),
            np.array(stop_token_ids, np.int32),
            uniform_numbers(seed, num_steps, len(prompts)),
            float(temperature),
            1.0 if top_p is None else float(top_p),
        )
        run = self._token_by_token if cpu_decoder.can_decode(self._backbone, len(prompts)) else self._at_once
        new_NB, length_B = run(kind, inputs)
        return [np.concatenate([prompt, new_NB[: length_B[row], row]]) for row, prompt in enumerate(prompts)]

    def _at_once(self, kind: Sampler, inputs: Inputs):
        """What `decode` returns, as arrays; all of it is one compiled function."""
        num_steps, stops = len(inputs.uniform_NB), len(inputs.stop_ids) > 0
        key = ("decode", inputs.token_ids_BP.shape, num_steps, len(inputs.stop_ids), kind)
        function = self._function(
            key, lambda *arrays: decode(self._backbone, num_steps, stops, kind, *arrays), self._whole()
        )
        return tuple(ops.convert_to_numpy(array) for array in function(*inputs))

    def _token_by_token(self, kind: Sampler, inputs: Inputs):
        """The same tokens by `CpuDecoder`, after a prompt that is read by a compiled function."""
        from llama_exp.models.cpu.decoder import CpuDecoder

        jit = not backend.runs_without_xla()
        read = self._function(("read", inputs.token_ids_BP.shape), functools.partial(read_prompt, self._backbone), jit)
        logits_BV, cache = read(inputs.token_ids_BP, inputs.num_prompt_B)
        num_slots = inputs.token_ids_BP.shape[1]
        decoder = CpuDecoder(self._backbone, cache, len(inputs.uniform_NB), num_slots - inputs.num_prompt_B)
        new_NB = np.zeros(inputs.uniform_NB.shape, np.int32)
        length_B, ended_B = np.zeros_like(inputs.num_prompt_B), np.zeros(len(inputs.num_prompt_B), bool)
        for step, uniform_B in enumerate(inputs.uniform_NB):
            new_NB[step] = self._choose(kind, logits_BV, uniform_B, inputs.temperature, inputs.top_p)
            length_B += ~ended_B
            ended_B |= (step + 1 >= inputs.num_new_B) | np.isin(new_NB[step], inputs.stop_ids)
            if ended_B.all():
                break
            logits_BV = decoder.step(new_NB[step])
        return new_NB, length_B

    def _choose(self, kind: Sampler, logits_BV, *numbers):
        if kind.greedy:  # one pass over logits that are on the host anyway; calling a compiled function costs more
            logits_BV = ops.convert_to_numpy(logits_BV)[:, : kind.num_tokens]
            if kind.holes:
                logits_BV = np.where(is_candidate(kind), logits_BV, -np.inf)
            return logits_BV.argmax(axis=-1)
        key, jit = ("choose", len(logits_BV), kind), not backend.runs_without_xla()
        return self._function(key, functools.partial(choose, kind), jit)(logits_BV, *numbers)

    def _whole(self) -> bool:
        """Whether XLA compiles all of it, even where training steps do without.

        A step of one token is many small operations, and only XLA updates the cache in place: on a CPU it is 1.6 to 2.2
        times as fast (135 million parameters). But on a CPU it also makes floats of all integer matrices before the
        loop over tokens and keeps them, eight times the memory of an int4 model.
        """
        return self._backbone.quantization is None or not backend.runs_without_xla()

    def _function(self, key, function, jit: bool):
        variables = self._backbone.variables
        if [id(v) for v in variables] != [id(v) for v in self._variables]:
            self._functions.clear()
            self._variables = list(variables)
        if key not in self._functions:
            self._functions[key] = backend.compiled(function, reads=variables, writes=[], jit=jit)
        return self._functions[key]


def bucket(length: int) -> int:
    """The length that `length` is padded to: 16, 24, 32, 48, 64, ... Few lengths mean few compilations."""
    size = SMALLEST_BUCKET
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def read_prompt(backbone, token_ids_BP, num_prompt_B):
    """Prompts, padded in front, in one pass.

    Returns:
        The logits (B, V) of the next token, and the cache (see `LlamaBackbone.new_cache`), P slots.
    """
    batch_size, num_slots = token_ids_BP.shape
    mask_BP = _is_prompt(num_slots, num_prompt_B)
    hidden_BPD, cache = backbone.call_with_cache(
        token_ids_BP,
        backbone.new_cache(batch_size, num_slots),
        0,
        padding_mask=mask_BP,
        position_ids=ops.maximum(ops.cumsum(mask_BP, axis=1) - 1, 0),
    )
    return backbone.token_embedding.project(hidden_BPD[:, -1]), cache


def _is_prompt(num_slots: int, num_prompt_B):
    """(B, P) int32: 0 where a row is padded, then 1."""
    return ops.cast(ops.arange(num_slots, dtype="int32")[None, :] >= (num_slots - num_prompt_B)[:, None], "int32")


def decode(
    backbone,
    num_steps: int,
    stops: bool,
    kind: Sampler,
    token_ids_BP,
    num_prompt_B,
    num_new_B,
    stop_ids,
    uniform_NB,
    temperature,
    top_p,
):
    """The prompt in one pass, then one token for all rows per iteration until every row is done.

    Args:
        backbone: a `LlamaBackbone`.
        num_steps: N.
        stops: whether there are stop tokens.
        kind: how tokens are chosen.
        token_ids_BP: prompts, padded in front.
        num_prompt_B: real tokens of each prompt.
        num_new_B: tokens that each row may get, 1 .. N.
        stop_ids: 1-D int32.
        uniform_NB: float32.
        temperature: float32 scalar.
        top_p: float32 scalar.

    Returns:
        New tokens (N, B) int32, and how many of them belong to each row, (B,) int32.
    """
    num_slots = token_ids_BP.shape[1]

    def next_token(logits_BV, step):
        token_B = choose(kind, logits_BV, uniform_NB[step], temperature, top_p)
        ended_B = step + 1 >= num_new_B
        if stops:
            ended_B = ops.logical_or(ended_B, ops.any(token_B[:, None] == stop_ids[None, :], axis=-1))
        return token_B, ended_B

    logits_BV, cache = read_prompt(backbone, token_ids_BP, num_prompt_B)
    # The prompt is done with a cache of its own length: its queries need no look at the empty slots.
    room = ((0, 0), (0, 0), (0, num_steps), (0, 0))
    cache = [(ops.pad(keys, room), ops.pad(values, room)) for keys, values in cache]
    mask_BT = ops.pad(_is_prompt(num_slots, num_prompt_B), ((0, 0), (0, num_steps)), constant_values=1)
    token_B, ended_B = next_token(logits_BV, 0)
    new_NB = ops.pad(token_B[None, :], ((0, num_steps - 1), (0, 0)))

    def proceed(step, token_B, ended_B, length_B, new_NB, cache):
        return ops.logical_and(step < num_steps, ops.logical_not(ops.all(ended_B)))

    def advance(step, token_B, ended_B, length_B, new_NB, cache):
        hidden_B1D, cache = backbone.call_with_cache(
            token_B[:, None],
            cache,
            num_slots + step - 1,
            padding_mask=mask_BT,
            position_ids=(num_prompt_B + step - 1)[:, None],
        )
        token_B, ends_B = next_token(backbone.token_embedding.project(hidden_B1D[:, 0]), step)
        new_NB = ops.slice_update(new_NB, (step, 0), token_B[None, :])
        length_B = length_B + ops.cast(ops.logical_not(ended_B), "int32")
        return step + 1, token_B, ops.logical_or(ended_B, ends_B), length_B, new_NB, cache

    first = (ops.convert_to_tensor(1, dtype="int32"), token_B, ended_B, ops.ones_like(token_B), new_NB, cache)
    _, _, _, length_B, new_NB, _ = ops.while_loop(proceed, advance, first)
    return new_NB, length_B
