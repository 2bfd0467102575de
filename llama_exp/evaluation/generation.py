"""Texts that the model writes, compared with right ones, on a file of JSON lines."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llama_exp.errors import InputError
from llama_exp.evaluation.examples import read_solved
from llama_exp.evaluation.records import fill, read_records, read_text, read_texts, read_value
from llama_exp.limits import raise_first
from llama_exp.limits.evaluation import FIGURES, GENERATION, task_problems

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Generation:
    """Does the model write the right text? It takes the likeliest token each time.

    Args:
        file: JSON lines, one item a line.
        prompt: text with the record's keys in braces.
        targets: key of the right text, or of a list of right ones, of which the best counts.
        max_new_tokens: of each text.
        stop_texts: a text ends before the first of them.
        separator: between prompt and answer, in solved items.
        examples_file: solved items that stand in front of each prompt; None: none.
        num_examples: how many of them, the first ones.

    Raises:
        ValueError: an impossible value.
    """

    kind = GENERATION
    figures = FIGURES[GENERATION]

    def __init__(
        self,
        *,
        file: str,
        prompt: str,
        targets: str,
        max_new_tokens: int,
        stop_texts: Sequence[str],
        separator: str,
        examples_file: str | None,
        num_examples: int,
    ):
        raise_first(task_problems("task", {key: value for key, value in locals().items() if key != "self"}))
        self._file, self._prompt, self._targets, self._separator = file, prompt, targets, separator
        self._max_new_tokens, self._stop_texts = max_new_tokens, list(stop_texts)
        self._examples_file, self._num_examples = examples_file, num_examples

    def items(self) -> list[dict[str, Any]]:
        """Prompt and targets of each record. Raises `InputError` with file and line."""
        solved = read_solved(self._examples_file, self._num_examples, self._solve)
        return [
            {"prompt": solved + prompt, "targets": targets}
            for prompt, targets in (self._read(record, where) for where, record in read_records(self._file))
        ]

    def evaluate(self, items, examinee) -> list[dict[str, Any]]:
        """Of each item the text, and how well it matches its targets."""
        texts = examinee.write([item["prompt"] for item in items], self._max_new_tokens, self._stop_texts)
        return [
            {
                "exact_match": max(exact_match(text, target) for target in item["targets"]),
                "f1": max(f1(text, target) for target in item["targets"]),
                "text": text,
                "targets": item["targets"],
            }
            for item, text in zip(items, texts, strict=True)
        ]

    def _solve(self, record: Mapping[str, Any], where: str) -> str:
        prompt, targets = self._read(record, where)
        return prompt + self._separator + targets[0]

    def _read(self, record: Mapping[str, Any], where: str) -> tuple[str, list[str]]:
        prompt = fill(self._prompt, record, where, "prompt")
        if isinstance(read_value(record, self._targets, where, "targets"), list):
            targets = read_texts(record, self._targets, where, "targets")
        else:
            targets = [read_text(record, self._targets, where, "targets")]
        if not targets:
            raise InputError.about(where, "the item has no target", f"{self._targets}=[]", "give one, or take it out")
        return prompt, targets


def normalize(text: str) -> str:
    """Lower case without ASCII punctuation, the words a, an, the, and superfluous blanks.

    Source: the evaluation script of SQuAD v1.1 (Rajpurkar et al. 2016, arXiv:1606.05250).
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(text: str, target: str) -> float:
    """1 where both are the same when normalized, else 0."""
    return float(normalize(text) == normalize(target))


def f1(text: str, target: str) -> float:
    """Harmonic mean of precision and recall of the normalized words; of two texts without any it is 1."""
    words, wanted = normalize(text).split(), normalize(target).split()
    if not words or not wanted:
        return float(words == wanted)
    common = (Counter(words) & Counter(wanted)).total()
    return 0.0 if not common else 2 * common / (len(words) + len(wanted))
