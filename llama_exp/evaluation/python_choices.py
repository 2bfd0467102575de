"""Which answer belongs to a question about the standard library: multiple choice without a download."""

from __future__ import annotations

import hashlib
from typing import Any

from llama_exp.dataset.python_qa import PythonQA
from llama_exp.evaluation.choices import evaluate_choices
from llama_exp.limits import raise_first
from llama_exp.limits.evaluation import FIGURES, MULTIPLE_CHOICE, task_problems


class PythonChoices:
    """Questions of the data set python_qa about objects of its validation split, with answers of others beside theirs.

    Args:
        num_choices: the right answer among them.
        validation_fraction: share of the objects that is asked about; under the same one, none of them stands in the
            training split of python_qa.

    Raises:
        ValueError: an impossible value.
    """

    kind = MULTIPLE_CHOICE
    figures = FIGURES[MULTIPLE_CHOICE]

    def __init__(self, *, num_choices: int, validation_fraction: float):
        values = {"num_choices": num_choices, "validation_fraction": validation_fraction}
        raise_first(task_problems("task", values))
        self._num_choices = num_choices
        self._dataset = PythonQA(
            sequence_length=128, packing="best_fit", overlong="truncate", validation_fraction=validation_fraction
        )

    def open(self, cache_dir: str) -> None:
        """Reads the standard library, or finds it in the cache."""
        self._dataset.open(cache_dir)

    def items(self) -> list[dict[str, Any]]:
        """A question with the right and wrong answers each, in an order that a hash of the question decides."""
        found: dict[str, tuple[str, str]] = {}
        for split, record in self._dataset.documents():
            texts = [piece.text for piece in record.pieces if piece.token is None]
            # An answer that repeats the object's name would be found without knowing anything.
            if split == "validation" and record.source.rpartition(".")[2] not in texts[1]:
                found.setdefault(texts[1], (texts[0], record.source))  # two objects may have one answer
        answers = sorted(found, key=_hash)
        return [self._item(number, answers, *found[answer]) for number, answer in enumerate(answers)]

    def evaluate(self, items, examinee) -> list[dict[str, Any]]:
        """See `evaluate_choices`."""
        return evaluate_choices(items, examinee)

    def _item(self, number: int, answers: list[str], prompt: str, source: str) -> dict[str, Any]:
        """Wrong answers are the next ones in an order without meaning, and so as often right ones themselves."""
        others = [answers[(number + step) % len(answers)] for step in range(self._num_choices)]
        choices = sorted(dict.fromkeys(others), key=lambda text: _hash(source + text))
        return {
            "prompt": prompt,
            "separator": " ",
            "choices": [text.removeprefix(" ") for text in choices],
            "answer": choices.index(answers[number]),
        }


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
