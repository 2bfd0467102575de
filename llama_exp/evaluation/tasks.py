"""A task of the config, opened: its items are read before anything that takes time, and asked when it is due."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llama_exp.config.evaluation import FILE_KEYS
from llama_exp.dataset.cache import content_key
from llama_exp.errors import InputError
from llama_exp.evaluation.item_texts import item_texts
from llama_exp.evaluation.outcome import Outcome, mean_and_error
from llama_exp.files.json_text import plain


class OpenTask:
    """A task with its items.

    Args:
        name: its name below `evaluation.tasks`.
        task: an object with items() -> list of JSON objects, evaluate(items, examinee) -> a JSON object of each, in
            which every number is a figure; and maybe kind (a word), figures (names of those numbers that are to be
            averaged; all numbers where it is not said) and open(cache_dir).
        node: its keys in the config, for the fingerprint.
        cache_dir: for `open`.
        limit: items, the first ones; None: all.

    Attributes:
        name, items: as they are. kind: the task's, or the name of its class. size: number of items.

    Raises:
        InputError: the items are wrong, or there are none.
    """

    def __init__(self, name: str, task: Any, node: Mapping[str, Any], cache_dir: str, limit: int | None):
        self.name, self._task, self._node = name, task, node
        if hasattr(task, "open"):
            task.open(cache_dir)
        self.items: list[Any] = list(task.items())[:limit]
        self.kind: str = getattr(task, "kind", type(task).__name__)
        self.size = len(self.items)
        if not self.items:
            raise InputError.about(f"evaluation.tasks.{name}", "the task has no items", "0 items", "check its source")

    def fingerprint(self) -> str:
        """SHA-256 of the task's keys, but for the names of its files, and of its items."""
        keys = {key: value for key, value in self._node.items() if key not in FILE_KEYS}
        return content_key(task=plain(keys), items=plain(self.items))

    def texts(self) -> list[str]:
        """The text of each item, to be looked for in the training rows."""
        return item_texts(self.items)

    def run(self, examinee, watch: Callable[[float], None]) -> Outcome:
        """The mean of each figure over the items with its standard error, and each item's results.

        Raises:
            InputError: a task of the user's own gives no such results.
        """
        examinee.watch, examinee.num_items, before = watch, self.size, examinee.tokens
        try:
            results = list(self._task.evaluate(self.items, examinee))
        finally:
            examinee.watch = None
        self._check(results)
        figures: dict[str, float | None] = {}
        for name in getattr(self._task, "figures", None) or _numbers(results[0]):
            figures[name], figures[f"{name}_error"] = mean_and_error([float(result[name]) for result in results])
        return Outcome(figures, results, examinee.tokens - before)

    def _check(self, results: list[Any]) -> None:
        where, action = f"evaluation.tasks.{self.name}", "return one mapping for each item (docs/how_to/evaluate.md)"
        if len(results) != self.size or not all(isinstance(result, Mapping) for result in results):
            found = f"{len(results)} results of {self.size} items"
            raise InputError.about(where, "the task's evaluate gives something else than results", found, action)
        names = getattr(self._task, "figures", None) or _numbers(results[0])
        for number, result in enumerate(results):
            missing = [name for name in names if name not in _numbers(result)]
            if missing or not names:
                found = f"item {number}: {dict(result)!r}"[:200]
                wanted = f"no number {', '.join(missing)}" if missing else "no number at all"
                raise InputError.about(where, f"a result of the task has {wanted}", found, action)


def _numbers(result: Mapping[str, Any]) -> list[str]:
    return [name for name, value in result.items() if isinstance(value, int | float)]
