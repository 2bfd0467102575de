"""What evaluations accept, and the figures that they give."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from typing import Any

from llama_exp.errors import Problem
from llama_exp.limits import COUNT, COUNT_OR_ZERO, INSIDE, Limit, Limits, allow_null, is_text, is_whole

SET, MULTIPLE_CHOICE, GENERATION, HARNESS = "set", "multiple_choice", "generation", "harness"
# Kind of an evaluation -> the figures that it gives, of which `<figure>_error` is the standard error for tasks. Those
# of lm-evaluation-harness name theirs themselves.
FIGURES = {
    SET: ("loss", "perplexity", "bits_per_byte"),
    MULTIPLE_CHOICE: ("accuracy", "normalized_accuracy"),
    GENERATION: ("exact_match", "f1"),
}
# What a class needs to be a task.
TASK_METHODS = ("items", "evaluate")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
NAME_WORDS = "letters, digits, '_', '-' and '.', at most 100: it becomes the name of a file"

LIMITS = Limits(
    "evaluation",
    {
        "every_steps": allow_null(COUNT),
        "batch_size": allow_null(COUNT),
        "limit": allow_null(COUNT),
    },
)
TASK_LIMITS = {
    "num_examples": COUNT_OR_ZERO,
    "max_new_tokens": COUNT,
    "num_choices": Limit(lambda value: is_whole(value, 2), "an integer of at least 2"),
    "validation_fraction": INSIDE,
    "num_fewshot": allow_null(COUNT_OR_ZERO),
    "max_length": allow_null(COUNT),
}


def task_problems(where: str, node: Mapping[str, Any]) -> Iterator[Problem]:
    """The problems of a task of ours that its keys alone show.

    Args:
        where: its config key, `evaluation.tasks.<name>`.
        node: its keys.
    """
    yield from Limits(where, TASK_LIMITS).value_problems(node)
    for key in ("prompt", "choices"):
        texts = node.get(key)
        for text in texts if isinstance(texts, list) else [texts] if key == "prompt" else []:
            if isinstance(text, str):
                yield from _template_problems(f"{where}.{key}", text)
    choices = node.get("choices", "")
    if not (isinstance(choices, str) or (isinstance(choices, list) and all(isinstance(x, str) for x in choices))):
        action = 'give the key of a list of texts, or a list of texts such as ["{a}", "{b}"]'
        yield Problem("has the wrong type", f"{where}.choices", repr(choices)[:80], action)
    elif isinstance(choices, list) and len(choices) < 2:
        action = "give at least two, or the key of a list of texts"
        yield Problem("is no choice", f"{where}.choices", f"{len(choices)} texts", action)
    if "tasks" in node and not node["tasks"]:
        action = "name at least one task, e.g. [arc_easy]; `lm-eval ls tasks` lists them"
        yield Problem("names no task", f"{where}.tasks", "[]", action)
    if any(text == "" for text in node.get("stop_texts") or ()):
        yield Problem("holds an empty text, which stands everywhere", f"{where}.stop_texts", '""', "take it out")
    file, examples, number = (node.get(key) for key in ("file", "examples_file", "num_examples"))
    if number and not examples:
        action = f"give {where}.examples_file, or set num_examples=0"
        yield Problem("counts solved items of a file that is not given", f"{where}.num_examples", str(number), action)
    if examples and not number:
        action = f"set {where}.num_examples, or take the file out"
        yield Problem("is a file of which nothing is used", f"{where}.examples_file", str(examples), action)
    if examples and examples == file:
        action = "give other items: each would see its own answer"
        yield Problem("is the file of the items themselves", f"{where}.examples_file", str(examples), action)


def _template_problems(where: str, text: str) -> Iterator[Problem]:
    try:
        read_template(text)
    except ValueError as error:
        yield Problem("is no template", where, f"{text[:80]!r}: {error}", "write keys as {key}; {{ and }} are braces")


def read_template(text: str) -> list[tuple[str, str | None]]:
    """A template as pieces: a text and the key of the record that follows it, None at the end.

    Braces around a key are all there is: neither attributes, indices nor formats, so that nothing is computed.

    Raises:
        ValueError: a brace is open, or stands around no key.
    """
    pieces = []
    for literal, key, form, conversion in string.Formatter().parse(text):
        if key is not None and (not key.strip() or form or conversion):
            raise ValueError(f"{{{key}{'!' + conversion if conversion else ''}{':' + form if form else ''}}} is no key")
        pieces.append((literal, key))
    if not is_text(text):
        raise ValueError("half of a character")
    return pieces
