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
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp.models.sampling import Sampler, choose, is_candidate, uniform_numbers

SMALLEST_BUCKET = 16
TOKENS_AT_A_TIME = 8  # of a decoding in one function that somebody watches


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
        on_tokens: Callable[[np.ndarray], None] | None = None,
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
            on_tokens: called with new tokens of all rows, (n, B), as soon as they are there; what a row is given after
                its end is no part of it.

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
        new_NB, length_B = run(kind, inputs, on_tokens)
        return [np.concatenate([prompt, new_NB[: length_B[row], row]]) for row, prompt in enumerate(prompts)]

    def _at_once(self, kind: Sampler, inputs: Inputs, on_tokens):
        """What `decode` returns, as arrays: one compiled function, or where somebody waits for the first tokens two."""
        num_steps, stops = len(inputs.uniform_NB), len(inputs.stop_ids) > 0
        choice = Choice(self._backbone, kind, stops)
        shapes = (inputs.token_ids_BP.shape, num_steps, len(inputs.stop_ids), kind)
        if on_tokens is None:
            function = self._function(("decode", *shapes), functools.partial(decode, choice), self._whole())
            return tuple(ops.convert_to_numpy(array) for array in function(inputs))
        begin = self._function(("begin", *shapes), functools.partial(begin_decoding, choice), self._whole())
        go_on = self._function(("go on", *shapes), functools.partial(go_on_decoding, choice), self._whole())
        state, told = begin(inputs), 0
        while True:
            step, ended_B = int(ops.convert_to_numpy(state.step)), ops.convert_to_numpy(state.ended_B)
            new_NB = ops.convert_to_numpy(state.new_NB)
            on_tokens(new_NB[told:step])
            told = step
            if ended_B.all() or step >= num_steps:
                return new_NB, ops.convert_to_numpy(state.length_B)
            state = go_on(inputs, state, min(step + TOKENS_AT_A_TIME, num_steps))

    def _token_by_token(self, kind: Sampler, inputs: Inputs, on_tokens):
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
            if on_tokens is not None:
                on_tokens(new_NB[step : step + 1])
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


def bucket(length: int, smallest: int = SMALLEST_BUCKET) -> int:
    """The length that `length` is padded to: 16, 24, 32, 48, 64, ... Few lengths mean few compilations.

    `smallest`: where they begin; a power of two of at least 2.
    """
    size = smallest
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def read_prompt(backbone, token_ids_BP, num_prompt_B):
    """Prompts, padded in front, in one pass.

    Returns:
        The logits (B, V) of the next token, and the cache (see `LlamaBackbone.new_cache`), P slots.
    """
    hidden_BD, cache = fill_cache(backbone, token_ids_BP, num_prompt_B)
    return backbone.token_embedding.project(hidden_BD), cache


def fill_cache(backbone, token_ids_BP, num_prompt_B):
    """As `read_prompt`, with the hidden states (B, D) of the last tokens in place of the logits."""
    batch_size, num_slots = token_ids_BP.shape
    mask_BP = is_prompt(num_slots, num_prompt_B)
    hidden_BPD, cache = backbone.call_with_cache(
        token_ids_BP,
        backbone.new_cache(batch_size, num_slots),
        0,
        padding_mask=mask_BP,
        position_ids=ops.maximum(ops.cumsum(mask_BP, axis=1) - 1, 0),
    )
    return hidden_BPD[:, -1], cache


def is_prompt(num_slots: int, num_prompt_B):
    """(B, P) int32: 0 where a row is padded, then 1."""
    return ops.cast(ops.arange(num_slots, dtype="int32")[None, :] >= (num_slots - num_prompt_B)[:, None], "int32")


class Choice(NamedTuple):
    """What a decoding function is compiled for.

    backbone: a `LlamaBackbone`. kind: how tokens are chosen. stops: whether there are stop tokens.
    """

    backbone: Any
    kind: Sampler
    stops: bool

    def next_token(self, inputs: Inputs, logits_BV, step):
        """A token of each row, (B,) int32, and whether it is the row's last, (B,) bool."""
        uniform_B = inputs.uniform_NB[step]
        token_B = choose(self.kind, logits_BV, uniform_B, inputs.temperature, inputs.top_p)
        ended_B = step + 1 >= inputs.num_new_B
        if self.stops:
            ended_B = ops.logical_or(ended_B, ops.any(token_B[:, None] == inputs.stop_ids[None, :], axis=-1))
        return token_B, ended_B


class State(NamedTuple):
    """A decoding under way: `step` tokens of each row are there.

    token_B: the last ones. ended_B: rows that are done. length_B: how many of the tokens belong to each row.
    new_NB: all of them. cache: see `LlamaBackbone.new_cache`, T slots.
    """

    step: Any
    token_B: Any
    ended_B: Any
    length_B: Any
    new_NB: Any
    cache: Any


def decode(choice: Choice, inputs: Inputs):
    """The prompt in one pass, then one token for all rows per iteration until every row is done.

    Returns:
        New tokens (N, B) int32, and how many of them belong to each row, (B,) int32.
    """
    state = go_on_decoding(choice, inputs, begin_decoding(choice, inputs), inputs.uniform_NB.shape[0])
    return state.new_NB, state.length_B


def begin_decoding(choice: Choice, inputs: Inputs) -> State:
    """The prompt in one pass, and a first token for all rows."""
    num_steps = inputs.uniform_NB.shape[0]
    logits_BV, cache = read_prompt(choice.backbone, inputs.token_ids_BP, inputs.num_prompt_B)
    # The prompt is done with a cache of its own length: its queries need no look at the empty slots.
    room = ((0, 0), (0, 0), (0, num_steps), (0, 0))
    cache = [(ops.pad(keys, room), ops.pad(values, room)) for keys, values in cache]
    token_B, ended_B = choice.next_token(inputs, logits_BV, 0)
    new_NB = ops.pad(token_B[None, :], ((0, num_steps - 1), (0, 0)))
    one = ops.convert_to_tensor(1, dtype="int32")
    return State(one, token_B, ended_B, ops.ones_like(token_B), new_NB, cache)


def go_on_decoding(choice: Choice, inputs: Inputs, state: State, limit) -> State:
    """One token for all rows per iteration, until every row is done or `limit` tokens are there."""
    num_slots, num_steps = inputs.token_ids_BP.shape[1], inputs.uniform_NB.shape[0]
    mask_BP = is_prompt(num_slots, inputs.num_prompt_B)
    mask_BT = ops.pad(mask_BP, ((0, 0), (0, num_steps)), constant_values=1)

    def proceed(step, token_B, ended_B, length_B, new_NB, cache):
        return ops.logical_and(step < limit, ops.logical_not(ops.all(ended_B)))

    def advance(step, token_B, ended_B, length_B, new_NB, cache):
        hidden_B1D, cache = choice.backbone.call_with_cache(
            token_B[:, None],
            cache,
            num_slots + step - 1,
            padding_mask=mask_BT,
            position_ids=(inputs.num_prompt_B + step - 1)[:, None],
        )
        logits_BV = choice.backbone.token_embedding.project(hidden_B1D[:, 0])
        token_B, ends_B = choice.next_token(inputs, logits_BV, step)
        new_NB = ops.slice_update(new_NB, (step, 0), token_B[None, :])
        length_B = length_B + ops.cast(ops.logical_not(ended_B), "int32")
        return step + 1, token_B, ops.logical_or(ended_B, ends_B), length_B, new_NB, cache

    return State(*ops.while_loop(proceed, advance, tuple(state)))
