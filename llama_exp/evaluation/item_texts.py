"""Items of a task as texts, to be looked for in other texts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from llama_exp.evaluation.examples import BETWEEN


def item_texts(items: Sequence[Any]) -> list[str]:
    """Question and right answer of each item; of an item of another form all texts in it.

    What stands in front of every prompt, such as solved items, is left out: it says nothing about an item.
    """
    prompts = [item["prompt"] for item in items if isinstance(item, Mapping) and isinstance(item.get("prompt"), str)]
    if len(prompts) < len(items):
        return ["\n".join(list_texts(item)) for item in items]
    head, between, _ = os.path.commonprefix(prompts).rpartition(BETWEEN) if len(prompts) > 1 else ("", "", "")
    return [prompt.removeprefix(head + between) + _answer(item) for prompt, item in zip(prompts, items, strict=True)]


def list_texts(value: Any) -> list[str]:
    """All texts in a JSON value, keys left out."""
    if isinstance(value, str):
        return [value]
    entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for entry in entries for text in list_texts(entry)]


def _answer(item: Mapping[str, Any]) -> str:
    choices, answer = item.get("choices"), item.get("answer")
    if isinstance(choices, Sequence) and isinstance(answer, int) and 0 <= answer < len(choices):
        return f"{item.get('separator', ' ')}{choices[answer]}"
    rest = {key: value for key, value in item.items() if key != "prompt"}
    return "".join(f"\n{text}" for text in list_texts(rest))
