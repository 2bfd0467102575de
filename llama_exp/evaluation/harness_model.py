"""lm-evaluation-harness' interface to a model, over ours. Imports lm_eval: only `harness.py` imports it, when needed.

What the harness' own `HFLM` does with special tokens, truncation and stop sequences (lm-eval 0.4.13,
`lm_eval/models/huggingface.py`) is done here in the same way, so that the same weights get the same numbers:

    tok_encode             the begin token in front, if the tokenizer puts one there; not where the text says it
                           itself. Names of special tokens in a text are the tokens.
    empty context          the begin token, else the end token, in its place
    too long               tokens of the context are dropped from the left
    rolling log-likelihood windows of the model's length behind the begin token
    generate_until         left-truncated contexts, greedy unless the task says else, cut at the first stop sequence

Shape letters: N new tokens at a time, B rows.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from llama_exp.dataset.chat.own_template import variables_of
from llama_exp.errors import InputError
from llama_exp.evaluation.likelihood import LogLikelihood
from llama_exp.tokenizer import chat_template

DEFAULT_MAX_NEW_TOKENS = 256  # as HFLM, where a task states none
# What a task may say on how tokens are chosen; the first ones are taken out by `normalize_gen_kwargs`.
_UNDERSTOOD = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
_WITHOUT_EFFECT = {"num_beams": 1, "use_cache": True, "num_return_sequences": 1, "repetition_penalty": 1.0}

Progress = Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], None]]]

_log = logging.getLogger(__name__)


class _AllStopped(Exception):
    """Every row of a batch has come to a stop sequence."""


class HarnessModel(TemplateLM):
    """A `LlamaCausalLM` as the harness' tasks see it.

    Args:
        model: with a tokenizer of its own vocabulary.
        name: of the model, for the harness' records.
        batch_size: continuations or prompts at a time.
        max_length: tokens that the model reads at a time.
        template: Jinja text of its chat template; None: it has none.
        progress: (what is done, how many requests) -> a context manager that yields what is told of done ones, and
            may raise to end it all.
    """

    def __init__(
        self, model: Any, *, name: str, batch_size: int, max_length: int, template: str | None, progress: Progress
    ):
        super().__init__()
        self.max_length = max_length
        self._model, self._name, self._batch_size = model, name, batch_size
        self._tokenizer, self._template, self._progress = model.tokenizer, template, progress
        self._log_likelihood = LogLikelihood(model, batch_size)
        self._warned = False

    @property
    def eot_token_id(self) -> int | None:
        """The token that ends a text, if there is one."""
        return self._tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What stands in front of a text without a context: the begin token, else the end token."""
        ids = [id_ for id_ in (self._tokenizer.bos_id, self._tokenizer.eos_id) if id_ is not None]
        if not ids:
            raise InputError.about(
                self._name,
                "a text without a context cannot be scored: the tokenizer has no begin and no end token",
                "bos_id and eos_id are None",
                "choose tasks with contexts, or a tokenizer with such a token (tokenizer=bpe has both)",
            )
        return ids[0]

    @property
    def tokenizer_name(self) -> str:
        """For the harness' cache of requests, which stays off."""
        return self._tokenizer.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids; `add_special_tokens` None puts the begin token in front where the tokenizer would."""
        ids, begin = self._tokenizer.encode_with_special_tokens(string), self._tokenizer.begin_id
        if begin is None or add_special_tokens is False:
            return ids
        if add_special_tokens is None and string.startswith(self._name_of(self.prefix_token_id)):
            return ids
        return [begin, *ids]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """(log-probability in nats, whether it is greedy) of each continuation; see `TemplateLM.loglikelihood`."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self, requests: Sequence[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        pairs = [
            (self._shorten(context, continuation, texts), continuation) for texts, context, continuation in requests
        ]
        with self._progress("answers", len(pairs)) as watch:
            return self._log_likelihood(pairs, watch)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """Log-probability of whole texts in nats, each token scored once."""
        texts = [self.tok_encode(request.args[0]) for request in requests]
        windows = sum(-(-len(text) // self.max_length) for text in texts)
        with self._progress("texts", windows) as watch:
            return self._log_likelihood.rolling(texts, self.prefix_token_id, self.max_length, watch)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """The text behind each context, up to its first stop sequence."""
        results = [""] * len(requests)
        with self._progress("texts to write", len(requests)) as watch:
            for number, places in enumerate(self._batches(requests)):
                options = _Options(requests[places[0]].args[1], self._end_name())
                contexts = [requests[place].args[0] for place in places]
                for place, text in zip(places, self._write(contexts, options, number), strict=True):
                    results[place] = text
                watch(len(places))
        return results

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model's template writes it; without the prompt, up to the last message's own end."""
        if self._template is None:
            action = "leave apply_chat_template out, or put chat_template.jinja into the model's folder"
            raise InputError.about(self._name, "the model has no chat template", "apply_chat_template=true", action)
        text = chat_template.render(
            chat_history, self._template, add_generation_prompt=add_generation_prompt, **variables_of(self._tokenizer)
        )
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"].strip()
        end = text.rfind(last)
        return text if end < 0 else text[: end + len(last)]

    def _shorten(self, context: list[int], continuation: list[int], texts: tuple[str, str] | None) -> list[int]:
        """The context's last tokens, so that both together are no more than the model reads, as HFLM does."""
        if not continuation or len(continuation) > self.max_length:
            found = f"{len(continuation)} tokens: {(texts or ('', ''))[1][:60]!r}"
            action = f"continuations must have 1 to {self.max_length} tokens: change the task, or state max_length"
            raise InputError.about(self._name, "a continuation cannot be scored", found, action)
        room = self.max_length + 1 - len(continuation)  # the last token is scored, not read
        if len(context) > room:
            self._warn_of_truncation(len(context) + len(continuation))
        return context[-room:]

    def _warn_of_truncation(self, num_tokens: int) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s reads %d tokens at a time, a request has %d: its context is cut from the left, as is every other that "
                "is too long",
                *(self._name, self.max_length, num_tokens),
            )

    def _batches(self, requests: Sequence[Any]) -> Iterator[list[int]]:
        """Places of requests with the same options, of similar length, the longest first."""
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(place)
        for places in groups.values():
            places.sort(key=lambda place: -len(requests[place].args[0]))
            for start in range(0, len(places), self._batch_size):
                yield places[start : start + self._batch_size]

    def _write(self, contexts: list[str], options: _Options, seed: int) -> list[str]:
        room = self.max_length - options.max_new_tokens
        if room < 1:
            found = f"max_gen_toks={options.max_new_tokens}, and the model reads {self.max_length}"
            action = "state a smaller max_gen_toks in the task's generation_kwargs"
            raise InputError.about(self._name, "the new tokens leave no room for a context", found, action)
        prompts = [np.array(self.tok_encode(context), np.int32) for context in contexts]
        longest = max(map(len, prompts))
        if longest > room:
            self._warn_of_truncation(longest + options.max_new_tokens)
        prompts = [prompt[-room:] for prompt in prompts]
        rows = _Rows(len(prompts), options, self._decode, self._tokenizer.stop_ids)
        with contextlib.suppress(_AllStopped):
            self._model.generate(
                prompts,
                max_length=max(map(len, prompts)) + options.max_new_tokens,
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
                seed=seed,
                on_tokens=rows.add,
            )
        return [postprocess_generated_text(text, options.until, None) for text in rows.texts()]

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids)

    def _name_of(self, token_id: int) -> str:
        return self._tokenizer.decode([token_id], skip_special_tokens=False)

    def _end_name(self) -> str | None:
        return None if self.eot_token_id is None else self._name_of(self.eot_token_id)


class _Options:
    """A task's `generation_kwargs`: what is understood of them. InputError for what would be left out in silence."""

    def __init__(self, stated: dict[str, Any], end_name: str | None):
        options: dict[str, Any] = dict(normalize_gen_kwargs(stated, DEFAULT_MAX_NEW_TOKENS))
        unknown = {
            key: value
            for key, value in options.items()
            if key not in _UNDERSTOOD and not (key in _WITHOUT_EFFECT and value == _WITHOUT_EFFECT[key])
        }
        if unknown:
            key = min(unknown)
            action = f"take it out of the task's YAML; understood are {', '.join(sorted(_UNDERSTOOD))}"
            raise InputError.about(f"generation_kwargs.{key}", "not supported", repr(unknown[key]), action)
        self.until = handle_stop_sequences(options.get("until"), end_name)
        self.max_new_tokens = int(options["max_gen_toks"])
        self.temperature = float(options["temperature"]) if options["do_sample"] else 0.0
        self.top_k = options.get("top_k") or None if self.temperature else None
        self.top_p = options.get("top_p") if self.temperature else None


class _Rows:
    """New tokens of a batch as they come; ends it when every row has ended or has come to a stop sequence."""

    def __init__(self, num_rows: int, options: _Options, decode: Callable[[list[int]], str], stop_ids: Sequence[int]):
        self._options, self._decode, self._stop_ids = options, decode, set(stop_ids)
        self._ids: list[list[int]] = [[] for _ in range(num_rows)]
        self._done = [False] * num_rows

    def add(self, new_NB: np.ndarray) -> None:
        """Takes tokens of all rows; raises _AllStopped when no row needs more."""
        for row, new in enumerate(new_NB.T.tolist()):
            for token_id in new:
                self._take(row, token_id)
            if not self._done[row]:
                text = self._decode(self._ids[row])
                self._done[row] = any(stop and stop in text for stop in self._options.until)
        if all(self._done):
            raise _AllStopped

    def _take(self, row: int, token_id: int) -> None:
        if self._done[row]:
            return
        if token_id not in self._stop_ids:
            self._ids[row].append(token_id)
        self._done[row] = token_id in self._stop_ids or len(self._ids[row]) >= self._options.max_new_tokens

    def texts(self) -> list[str]:
        return [self._decode(ids) for ids in self._ids]
