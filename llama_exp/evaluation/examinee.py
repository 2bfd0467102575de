"""The model as tasks see it: it scores texts and writes texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from llama_exp.errors import NumericalError, Problem
from llama_exp.evaluation.likelihood import LogLikelihood, Pair, TokenIds


class Examinee:
    """What a task may ask of a model.

    Args:
        model: a `LlamaCausalLM` with a tokenizer.
        batch_size: choices or prompts at a time.
        context_length: tokens that the model was made for; None: not known.

    Attributes:
        model, batch_size, context_length: as given. tokenizer: the model's. tokens: how many were scored or written so
        far. num_items: of the task that asks. watch: called with the number of items that came to be done, or a part of
        one; what it raises ends the task. None: nobody watches.
    """

    def __init__(self, model, batch_size: int, context_length: int | None = None):
        self.model, self.tokenizer, self.batch_size = model, model.tokenizer, batch_size
        self.context_length = context_length
        self.tokens, self.num_items = 0, 1
        self.watch: Callable[[float], None] | None = None
        self._log_likelihood = LogLikelihood(model, batch_size)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Log-probability (nats, summed) of each text behind its prompt, and whether it is the greedy continuation.

        Args:
            pairs: (prompt, text behind it); the texts of one prompt share its computation.

        Raises:
            NumericalError: the model computes something else than numbers.
        """
        return self.score_ids([self.encode_pair(*pair) for pair in pairs])

    def score_ids(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """As `score`, of (context, continuation) in token ids, both of at least one; they are used as they are."""
        scores = self._log_likelihood(pairs, lambda count: self.tell(count, len(pairs)))
        self._check([score for score, _ in scores], [continuation for _, continuation in pairs])
        return scores

    def score_texts(self, texts: Sequence[TokenIds], begin_id: int, max_length: int) -> list[float]:
        """Log-probability of whole texts behind a begin token, in windows; see `LogLikelihood.rolling`."""
        windows = sum(-(-len(text) // max_length) for text in texts)
        scores = self._log_likelihood.rolling(texts, begin_id, max_length, lambda count: self.tell(count, windows))
        self._check(scores, texts)
        return scores

    def _check(self, scores: Sequence[float], texts: Sequence[TokenIds]) -> None:
        """Counts the tokens; NumericalError for a text whose score is no number."""
        wrong = next((text for score, text in zip(scores, texts, strict=True) if not math.isfinite(score)), None)
        if wrong is not None:
            what, action = "a log-probability is not finite", "look at the run's loss; or try --precision float32"
            found = self.tokenizer.decode(list(wrong))[:60]
            raise NumericalError(Problem(what, "evaluation", f"{found!r} behind a prompt", action))
        self.tokens += sum(map(len, texts))

    def write(self, prompts: Sequence[str], max_new_tokens: int, stop_texts: Sequence[str] = ()) -> list[str]:
        """What the model writes behind each prompt, greedily, up to its stop token or before a stop text."""
        rows = [np.array(self.begun(prompt), np.int32) for prompt in prompts]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]), reverse=True)
        texts = [""] * len(rows)
        for start in range(0, len(order), self.batch_size):
            some = order[start : start + self.batch_size]
            for number, text in zip(some, self._continue([rows[n] for n in some], max_new_tokens), strict=True):
                texts[number] = _cut(text, stop_texts)
            self.tell(len(some), len(prompts))
        return texts

    def tell(self, count: int, total: int) -> None:
        """Says that `count` of `total` texts of the task are done."""
        if self.watch is not None:
            self.watch(count * self.num_items / total)

    def encode_pair(self, prompt: str, text: str) -> tuple[list[int], list[int]]:
        """Token ids of both: of the text those that follow the prompt's number of tokens in the whole.

        Source: `TemplateLM._encode_pair` of lm-evaluation-harness: blanks at the prompt's end go to the text.
        """
        blanks = len(prompt) - len(prompt.rstrip())
        if blanks:
            prompt, text = prompt[:-blanks], prompt[-blanks:] + text
        encode = self.tokenizer.encode
        # A tokenizer may make no more tokens of the whole than of the prompt alone.
        return self.begun(prompt), encode(prompt + text)[len(encode(prompt)) :] or encode(text)

    def begun(self, text: str) -> list[int]:
        """Token ids of a text with the begin token in front; of an empty one without it, what ends texts."""
        ids, begin_id = self.tokenizer.encode(text), self.tokenizer.begin_id
        ids = ids if begin_id is None or ids[:1] == [begin_id] else [begin_id, *ids]
        return ids or [self.tokenizer.eos_id or 0]

    def _continue(self, rows: list[np.ndarray], max_new_tokens: int) -> list[str]:
        # One number of rows is compiled once.
        filled = rows + [rows[-1]] * (self.batch_size - len(rows))
        outputs = self.model.generate(filled, max_length=max(map(len, rows)) + max_new_tokens)
        new = [output[len(row) :][:max_new_tokens] for row, output in zip(rows, outputs, strict=False)]
        self.tokens += sum(map(len, new))
        return [self.tokenizer.decode(token_ids.tolist()) for token_ids in new]


def _cut(text: str, stop_texts: Sequence[str]) -> str:
    """The text before the first of the stop texts."""
    found = [position for position in map(text.find, stop_texts) if position >= 0]
    return text[: min(found)] if found else text
