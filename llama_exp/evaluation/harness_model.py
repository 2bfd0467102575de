"""lm-evaluation-harness' interface to a model, over ours. Imports lm_eval: only `harness.py` imports it, when needed.

What the harness' own `HFLM` does with special tokens, truncation and stop sequences (lm-eval 0.4.13,
`lm_eval/models/huggingface.py`) is done here in the same way, so that the same weights get the same numbers:

    tok_encode             the begin token in front, if the tokenizer puts one there; not where the text says it
                           itself. Names of special tokens in a text are the tokens.
    empty context          the begin token, else the end token, in its place
    too long               tokens of the context are dropped from the left
    rolling log-likelihood windows of the model's length behind the begin token
    generate_until         left-truncated contexts, greedy unless the task says else, cut at the first stop sequence
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import postprocess_generated_text

from llama_exp.dataset.chat.own_template import variables_of
from llama_exp.errors import InputError
from llama_exp.evaluation.examinee import Examinee
from llama_exp.evaluation.harness_writing import AllStopped, Options, Rows
from llama_exp.tokenizer import chat_template

NAME = "the model"
_log = logging.getLogger(__name__)


class HarnessModel(TemplateLM):
    """A `LlamaCausalLM` as the harness' tasks see it.

    Args:
        examinee: the model, and who watches it.
        max_length: tokens that the model reads at a time.
        template: Jinja text of its chat template; None: it has none.
    """

    def __init__(self, examinee: Examinee, max_length: int, template: str | None):
        super().__init__()
        self.max_length = max_length
        self._examinee, self._tokenizer, self._template = examinee, examinee.tokenizer, template
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
                "the tokenizer",
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
        empty = next((request.args[0] for request in requests if not request.args[1]), None)
        if empty is not None:
            action = "give every choice a text, or take the item out"
            raise InputError.about(NAME, "an empty continuation cannot be scored", f"behind {empty[-60:]!r}", action)
        self._count_items(requests)
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self, requests: Sequence[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        pairs = [
            (self._shorten(context, continuation, texts), continuation) for texts, context, continuation in requests
        ]
        return self._examinee.score_ids(pairs)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """Log-probability of whole texts in nats, each token scored once."""
        self._count_items(requests)
        texts = [self.tok_encode(request.args[0]) for request in requests]
        return self._examinee.score_texts(texts, self.prefix_token_id, self.max_length)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """The text behind each context, up to its first stop sequence."""
        self._count_items(requests)
        results = [""] * len(requests)
        for number, (places, size) in enumerate(self._batches(requests)):
            options = Options(requests[places[0]].args[1], self._end_name())
            prompts = [self._prompt(requests[place].args[0], options) for place in places]
            for place, text in zip(places, self._write(prompts, size, options, number), strict=True):
                results[place] = text
            self._examinee.tell(len(places), len(requests))
        return results

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model's template writes it; without the prompt, up to the last message's own end."""
        if self._template is None:
            action = "leave apply_chat_template out, or put chat_template.jinja into the model's folder"
            raise InputError.about(NAME, "the model has no chat template", "apply_chat_template=true", action)
        text = chat_template.render(
            chat_history, self._template, add_generation_prompt=add_generation_prompt, **variables_of(self._tokenizer)
        )
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"].strip()
        end = text.rfind(last)
        return text if end < 0 else text[: end + len(last)]

    def _count_items(self, requests: Sequence[Any]) -> None:
        """So that the progress of these requests is told in items."""
        self._examinee.num_items = len({(request.task_name, request.doc_id) for request in requests})

    def _shorten(self, context: list[int], continuation: list[int], texts: tuple[str, str] | None) -> list[int]:
        """The context's last tokens, so that both together are no more than the model reads, as HFLM does."""
        if not continuation or len(continuation) > self.max_length:
            found = f"{len(continuation)} tokens: {(texts or ('', ''))[1][:60]!r}"
            action = f"continuations must have 1 to {self.max_length} tokens: change the task, or state max_length"
            raise InputError.about(NAME, "a continuation cannot be scored", found, action)
        room = self.max_length + 1 - len(continuation)  # the last token is scored, not read
        if len(context) > room:
            self._warn_of_truncation(len(context) + len(continuation))
        return (context or [self.prefix_token_id])[-room:]

    def _warn_of_truncation(self, num_tokens: int) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s reads %d tokens at a time, a request has %d: its context is cut from the left, as are others",
                *(NAME, self.max_length, num_tokens),
            )

    def _batches(self, requests: Sequence[Any]) -> Iterator[tuple[list[int], int]]:
        """Places of requests with the same options, the longest first, and how many rows are computed for them.

        The last ones are filled up to as many as all others are: one number of rows is compiled once.
        """
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(place)
        for places in groups.values():
            places.sort(key=lambda place: -len(requests[place].args[0]))
            size = min(self._examinee.batch_size, len(places))
            for start in range(0, len(places), size):
                yield places[start : start + size], size

    def _prompt(self, context: str, options: Options) -> np.ndarray:
        """The last tokens of a context, as many as leave room for the new ones."""
        room = self.max_length - options.max_new_tokens
        if room < 1:
            found = f"max_gen_toks={options.max_new_tokens}, and {NAME} reads {self.max_length}"
            action = "state a smaller max_gen_toks in the task's generation_kwargs, or a larger max_length"
            raise InputError.about("generation_kwargs", "the new tokens leave no room for a context", found, action)
        ids = self.tok_encode(context) or [self.prefix_token_id]
        if len(ids) > room:
            self._warn_of_truncation(len(ids) + options.max_new_tokens)
        return np.array(ids[-room:], np.int32)

    def _write(self, prompts: list[np.ndarray], size: int, options: Options, seed: int) -> list[str]:
        rows = Rows(len(prompts), options, self._tokenizer)
        with contextlib.suppress(AllStopped):
            self._examinee.model.generate(
                prompts + prompts[-1:] * (size - len(prompts)),
                max_length=max(map(len, prompts)) + options.max_new_tokens,
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
                seed=seed,
                on_tokens=rows.add,
            )
        self._examinee.tokens += rows.num_tokens
        return [postprocess_generated_text(text, options.until, None) for text in rows.texts()]

    def _name_of(self, token_id: int) -> str:
        return self._tokenizer.decode([token_id], skip_special_tokens=False)

    def _end_name(self) -> str | None:
        return None if self.eot_token_id is None else self._name_of(self.eot_token_id)
