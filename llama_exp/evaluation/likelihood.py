"""How likely a model finds continuations of contexts; a context that several continuations share is read once.

    contexts, padded in front  ->  keys, values and last hidden states      one pass
    its continuations          ->  a batch that goes on from the context's keys and values, repeated

Four choices behind a context of 200 tokens cost 200 + 4 x 10 tokens so, and 4 x 210 as whole sequences. Both give the
same numbers up to rounding.

Shape letters: B contexts, P context slots, R continuations, C tokens of them that are read (all but the last),
L = C + 1 tokens of them that are scored, D hidden_dim.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp.models.generation import bucket, fill_cache, is_prompt
from llama_exp.objective import next_token_scores

# Positions whose logits exist at the same time.
CHUNK_TOKENS = 512
# Continuations are short: an answer's letter needs no 16 slots.
SMALLEST_CONTINUATION = 2

TokenIds = Sequence[int]
Pair = tuple[TokenIds, TokenIds]


class _Context(NamedTuple):
    """A context, and the places of the pairs that have it."""

    token_ids: tuple[int, ...]
    places: list[int]


class LogLikelihood:
    """`log_likelihood(pairs)`: of each continuation behind its context, the log-probability and whether it is greedy.

    Weights are read at each call. What was compiled is kept: contexts and continuations are padded to few lengths.

    Args:
        model: a `LlamaCausalLM`; of its tokenizer nothing is used.
        batch_size: continuations at a time; contexts too, where each has one.

    Raises:
        ValueError: `batch_size` is no whole number of at least 1.
    """

    def __init__(self, model, batch_size: int):
        if type(batch_size) is not int or batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r} must be a whole number of at least 1.")
        self._backbone, self._batch_size = model.backbone, batch_size
        variables, jit = self._backbone.variables, not backend.runs_without_xla()
        self._read = backend.compiled(functools.partial(fill_cache, self._backbone), variables, [], jit)
        self._score = backend.compiled(functools.partial(score_continuations, self._backbone), variables, [], jit)

    def __call__(self, pairs: Sequence[Pair], watch: Callable[[int], None] | None = None) -> list[tuple[float, bool]]:
        """Scores pairs of token ids.

        Args:
            pairs: (context, continuation) each, of at least one token; equal contexts are read once, wherever they
                stand. Nothing is cut: pairs that are too long for the model are the caller's to shorten.
            watch: called with the number of pairs that came to be scored, batch by batch; what it raises ends the call.

        Returns:
            In the order of `pairs`: the summed log-probability of the continuation's tokens in nats, and whether each
            of them is the likeliest at its place.

        Raises:
            ValueError: a context or continuation has no tokens, or a token lies outside of the vocabulary.
        """
        self._check(pairs)
        results: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        for contexts in self._batches(pairs):
            for places, scores in self._score_contexts(contexts, pairs):
                for place, score in zip(places, scores, strict=True):
                    results[place] = score
                if watch is not None:
                    watch(len(places))
        return results

    def rolling(
        self, texts: Sequence[TokenIds], begin_id: int, max_length: int, watch: Callable[[int], None] | None = None
    ) -> list[float]:
        """Log-probability of whole texts, each token scored once, in windows where they are longer than the model.

        Args:
            texts: token ids of each, without a token in front.
            begin_id: the token in front of the first one.
            max_length: tokens that the model reads at a time.
            watch: as above, with windows in place of pairs.

        Returns:
            The sum over each text in nats; 0 for one without tokens.

        Source: windows as lm-evaluation-harness forms them (`lm_eval.utils.get_rolling_token_windows`).
        """
        windows = [list(_windows(text, begin_id, max_length)) for text in texts]
        scores = iter(self([window for its in windows for window in its], watch))
        return [sum(next(scores)[0] for _ in its) for its in windows]

    def _check(self, pairs: Sequence[Pair]) -> None:
        vocabulary_size = self._backbone.vocabulary_size
        for number, pair in enumerate(pairs):
            for name, token_ids in zip(("context", "continuation"), pair, strict=True):
                if not len(token_ids):
                    raise ValueError(f"pairs[{number}]: the {name} has no tokens. Put the begin token in front.")
                if not 0 <= min(token_ids) <= max(token_ids) < vocabulary_size:
                    raise ValueError(f"pairs[{number}]: a token of the {name} is outside of {vocabulary_size} ids.")

    def _batches(self, pairs: Sequence[Pair]) -> Iterator[list[_Context]]:
        """Contexts that are read together: of similar length, the longest first, so that memory runs out early."""
        found: dict[tuple[int, ...], _Context] = {}
        for place, (context, _) in enumerate(pairs):
            key = tuple(context)
            found.setdefault(key, _Context(key, [])).places.append(place)

        def lengths(context: _Context) -> tuple[int, int]:
            return bucket(len(context.token_ids)), max(len(pairs[place][1]) for place in context.places)

        ordered = sorted(found.values(), key=lengths, reverse=True)
        most = max((len(context.places) for context in ordered), default=1)
        at_once = max(1, self._batch_size // most)
        start = 0
        while start < len(ordered):
            slots = bucket(len(ordered[start].token_ids))
            batch = [c for c in ordered[start : start + at_once] if bucket(len(c.token_ids)) == slots]
            start += len(batch)
            yield batch + [batch[0]._replace(places=[])] * (at_once - len(batch))

    def _score_contexts(self, contexts: list[_Context], pairs: Sequence[Pair]):
        """Places of pairs and their scores, some at a time."""
        token_ids_BP, num_prompt_B = pad_in_front([context.token_ids for context in contexts])
        hidden_BD, cache = self._read(token_ids_BP, num_prompt_B)
        rows = [(number, place) for number, context in enumerate(contexts) for place in context.places]
        size = min(self._batch_size, max(len(context.places) for context in contexts) * len(contexts))
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            places = [place for _, place in some]
            filled = some + [some[0]] * (size - len(some))
            labels_RL, num_labels_R = _pad_behind([pairs[place][1] for _, place in filled])
            context_R = np.array([number for number, _ in filled], np.int32)
            arrays = (context_R, num_prompt_B, labels_RL, num_labels_R)
            sums_R, greedy_R = (ops.convert_to_numpy(x) for x in self._score(hidden_BD, cache, *arrays))
            yield places, [(float(sums_R[row]), bool(greedy_R[row])) for row in range(len(some))]


def score_continuations(backbone, hidden_BD, cache, context_R, num_prompt_B, labels_RL, num_labels_R):
    """Scores continuations from what `fill_cache` has left of their contexts.

    Args:
        backbone: a `LlamaBackbone`.
        hidden_BD: of the contexts' last tokens.
        cache: of the contexts, P slots.
        context_R: the context of each continuation, in [0, B).
        num_prompt_B: tokens of each context.
        labels_RL: the continuations, padded behind with any ids.
        num_labels_R: tokens of each.

    Returns:
        (R,) float32 sums of log-probabilities in nats, and (R,) bool, whether every token is the likeliest.
    """
    num_slots, num_read = cache[0][0].shape[2], labels_RL.shape[1] - 1
    hidden_RLD = ops.take(hidden_BD, context_R, axis=0)[:, None, :]
    if num_read:
        num_prompt_R = ops.take(num_prompt_B, context_R)
        room = ((0, 0), (0, 0), (0, num_read), (0, 0))
        repeated = [tuple(ops.pad(ops.take(part, context_R, axis=0), room) for part in pair) for pair in cache]
        mask_RT = ops.pad(is_prompt(num_slots, num_prompt_R), ((0, 0), (0, num_read)), constant_values=1)
        hidden_RCD, _ = backbone.call_with_cache(
            labels_RL[:, :-1],
            repeated,
            num_slots,
            padding_mask=mask_RT,
            position_ids=num_prompt_R[:, None] + ops.arange(num_read, dtype="int32")[None, :],
        )
        hidden_RLD = ops.concatenate([hidden_RLD, hidden_RCD], axis=1)
    scores_RL, greedy_RL = next_token_scores(backbone.token_embedding, hidden_RLD, labels_RL, chunk_tokens=CHUNK_TOKENS)
    counts_RL = ops.arange(labels_RL.shape[1], dtype="int32")[None, :] < num_labels_R[:, None]
    sums_R = ops.sum(ops.where(counts_RL, scores_RL, 0.0), axis=1)
    return sums_R, ops.all(ops.logical_or(greedy_RL > 0.5, ops.logical_not(counts_RL)), axis=1)


def pad_in_front(rows: Sequence[TokenIds]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (B, P), padded in front to a common length, and how many are real, (B,): int32."""
    num_slots = bucket(max(map(len, rows)))
    token_ids_BP = np.zeros((len(rows), num_slots), np.int32)
    for row, token_ids in zip(token_ids_BP, rows, strict=True):
        row[num_slots - len(token_ids) :] = token_ids
    return token_ids_BP, np.array([len(row) for row in rows], np.int32)


def _pad_behind(rows: Sequence[TokenIds]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (R, L) and their numbers (R,): int32. L - 1, the tokens that are read, is one of few lengths or 0."""
    longest = max(map(len, rows))
    num_read = 0 if longest == 1 else bucket(longest - 1, SMALLEST_CONTINUATION)
    labels_RL = np.zeros((len(rows), num_read + 1), np.int32)
    for row, token_ids in zip(labels_RL, rows, strict=True):
        row[: len(token_ids)] = token_ids
    return labels_RL, np.array([len(row) for row in rows], np.int32)


def _windows(token_ids: TokenIds, begin_id: int, max_length: int) -> Iterator[Pair]:
    """Contexts and continuations that cover a text; the last window reaches back as far as the model reads."""
    if token_ids:
        yield [begin_id], token_ids[:max_length]
    for start in range(max_length, len(token_ids), max_length):
        end = min(start + max_length, len(token_ids))
        yield token_ids[end - max_length - 1 : start], token_ids[start:end]
