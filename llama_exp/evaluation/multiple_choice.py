"""Multiple choice on a file of JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_exp.errors import InputError
from llama_exp.evaluation.choices import evaluate_choices
from llama_exp.evaluation.examples import read_solved
from llama_exp.evaluation.records import fill, read_records, read_texts, read_value
from llama_exp.limits import raise_first
from llama_exp.limits.evaluation import FIGURES, MULTIPLE_CHOICE, task_problems


class MultipleChoice:
    r"""One right answer among several: which one does the model find likeliest behind the prompt?

    Args:
        file: JSON lines, one item a line.
        prompt: text with the record's keys in braces: `Question: {question}\nAnswer:`.
        choices: key of a list of texts; or a list of texts with keys in braces.
        answer: key of the right choice: its number, from 0, or its text.
        separator: between prompt and choice.
        examples_file: solved items that stand in front of each prompt; None: none.
        num_examples: how many of them, the first ones.

    Raises:
        ValueError: an impossible value.
    """

    kind = MULTIPLE_CHOICE
    figures = FIGURES[MULTIPLE_CHOICE]

    def __init__(
        self,
        *,
        file: str,
        prompt: str,
        choices: str | Sequence[str],
        answer: str,
        separator: str,
        examples_file: str | None,
        num_examples: int,
    ):
        raise_first(task_problems("task", {key: value for key, value in locals().items() if key != "self"}))
        self._file, self._prompt, self._choices, self._answer = file, prompt, choices, answer
        self._separator, self._examples_file, self._num_examples = separator, examples_file, num_examples

    def items(self) -> list[dict[str, Any]]:
        """Prompt, choices and answer of each record. Raises `InputError` with file and line."""
        solved = read_solved(self._examples_file, self._num_examples, self._solve)
        return [
            {"prompt": solved + prompt, "separator": self._separator, "choices": choices, "answer": answer}
            for prompt, choices, answer in (self._read(record, where) for where, record in read_records(self._file))
        ]

    def evaluate(self, items, examinee) -> list[dict[str, Any]]:
        """See `evaluate_choices`."""
        return evaluate_choices(items, examinee)

    def _solve(self, record: Mapping[str, Any], where: str) -> str:
        prompt, choices, answer = self._read(record, where)
        return prompt + self._separator + choices[answer]

    def _read(self, record: Mapping[str, Any], where: str) -> tuple[str, list[str], int]:
        prompt = fill(self._prompt, record, where, "prompt")
        if isinstance(self._choices, str):
            choices = read_texts(record, self._choices, where, "choices")
        else:
            choices = [fill(choice, record, where, "choices") for choice in self._choices]
        if len(choices) < 2:
            found, action = f"{len(choices)} choices", "give at least two, or take the item out"
            raise InputError.about(where, "the item leaves no choice", found, action)
        if "" in choices:
            found = f"choice {choices.index('')} of {len(choices)}"
            raise InputError.about(where, "a choice is empty", found, "write its text, or take it out")
        return prompt, choices, self._index(record, choices, where)

    def _index(self, record: Mapping[str, Any], choices: list[str], where: str) -> int:
        answer = read_value(record, self._answer, where, "answer")
        if type(answer) is int and 0 <= answer < len(choices):
            return answer
        found = f"{self._answer}={answer!r}"[:120]
        if isinstance(answer, str) and choices.count(answer) == 1:
            return choices.index(answer)
        if isinstance(answer, str) and answer in choices:
            raise InputError.about(where, "the answer is two of the choices", found, "give the number of the right one")
        action = f"give a number from 0 to {len(choices) - 1}, or the text of a choice"
        raise InputError.about(where, "the answer is none of the choices", found, action)
