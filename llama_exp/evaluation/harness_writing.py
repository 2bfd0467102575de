"""What a task of lm-evaluation-harness says on texts to be written, and the texts as they come. Imports lm_eval.

Shape letters: N new tokens at a time, B rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from llama_exp.errors import InputError

DEFAULT_MAX_NEW_TOKENS = 256  # as HFLM, where a task states none
_UNDERSTOOD = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
_WITHOUT_EFFECT = {"num_beams": 1, "use_cache": True, "num_return_sequences": 1, "repetition_penalty": 1.0}


class AllStopped(Exception):  # noqa: N818 - no error: nobody needs more tokens
    """Every row of a batch has ended."""


class Options:
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


class Rows:
    """New tokens of a batch as they come; ends it when every row has ended or has come to a stop sequence."""

    def __init__(self, num_rows: int, options: Options, tokenizer: Any):
        self._options, self._tokenizer, self._stop_ids = options, tokenizer, set(tokenizer.stop_ids)
        self._ids: list[list[int]] = [[] for _ in range(num_rows)]
        self._done = [False] * num_rows

    def add(self, new_NB: np.ndarray) -> None:
        """Takes tokens of all rows and of those that fill the batch up; raises AllStopped when no row needs more."""
        for row, new in enumerate(new_NB[:, : len(self._ids)].T.tolist()):
            for token_id in new:
                self._take(row, token_id)
            if not self._done[row]:
                text = self._tokenizer.decode(self._ids[row])
                self._done[row] = any(stop and stop in text for stop in self._options.until)
        if all(self._done):
            raise AllStopped

    def _take(self, row: int, token_id: int) -> None:
        if self._done[row]:
            return
        if token_id not in self._stop_ids:
            self._ids[row].append(token_id)
        self._done[row] = token_id in self._stop_ids or len(self._ids[row]) >= self._options.max_new_tokens

    @property
    def num_tokens(self) -> int:
        """New tokens of all rows."""
        return sum(map(len, self._ids))

    def texts(self) -> list[str]:
        """The text of each row; what stands behind a stop sequence is still in it."""
        return [self._tokenizer.decode(ids) for ids in self._ids]
