"""Tasks of lm-evaluation-harness as one evaluation: its own ones, and local ones on files. Imports lm_eval when used.

The classes here know nothing of it; `harness_tasks` and `harness_model` do.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_exp.dataset.cache import content_key
from llama_exp.errors import ConfigError, Problem
from llama_exp.evaluation.outcome import Outcome
from llama_exp.limits import raise_first
from llama_exp.limits.evaluation import HARNESS, task_problems
from llama_exp.tokenizer.chat_template import find_template

DEFAULT_MAX_LENGTH = 2048  # as HFLM, where a model's files state none
_WHERE_ONLY = ("include_path", "online")  # keys that say where tasks and data are, not what is asked


class Harness:
    """Tasks of lm-evaluation-harness.

    Args:
        tasks: names of tasks, groups or tags, or paths of their YAML files.
        include_path: folder of YAML files of more tasks; None: the harness' own alone.
        num_fewshot: solved items in front of each; None: as each task says.
        apply_chat_template: whether items are written as conversations.
        system_instruction: text in front of everything; None: as each task says.
        max_length: tokens that the model reads at a time; None: as its files say, else 2048.
        online: whether data that are not on this machine are downloaded.

    Raises:
        ValueError: an impossible value.
    """

    kind = HARNESS

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        include_path: str | None,
        num_fewshot: int | None,
        apply_chat_template: bool,
        system_instruction: str | None,
        max_length: int | None,
        online: bool,
    ):
        raise_first(task_problems("task", {key: value for key, value in locals().items() if key != "self"}))
        self.tasks = list(tasks)
        self.include_path = None if include_path is None else Path(os.path.expanduser(include_path))
        self.num_fewshot, self.apply_chat_template = num_fewshot, apply_chat_template
        self.system_instruction, self.max_length, self.online = system_instruction, max_length, online


class OpenHarness:
    """A `Harness` with its tasks loaded; stands where an `OpenTask` does.

    Args:
        name: its name below `evaluation.tasks`.
        harness: what it says.
        node: its keys in the config, for the fingerprint.
        limit: items of each task, the first ones; None: all.

    Attributes:
        name: as given. kind: a word. size: items of all tasks together.

    Raises:
        ConfigError: lm-eval is not installed. InputError: a task or its data are missing or damaged.
    """

    kind = HARNESS

    def __init__(self, name: str, harness: Harness, node: Mapping[str, Any], limit: int | None):
        require_lm_eval(f"evaluation.tasks.{name}")
        self.name, self._harness, self._limit = name, harness, limit
        self._keys = {key: value for key, value in node.items() if key not in _WHERE_ONLY}
        with self._surroundings():
            from llama_exp.evaluation import harness_tasks

            self._loaded = harness_tasks.load_tasks(harness.tasks, harness.include_path)
            self._fingerprint = content_key(keys=self._keys, tasks=harness_tasks.asked(self._loaded, limit))
            self.size = harness_tasks.count_items(self._loaded, limit)

    def fingerprint(self) -> str:
        """SHA-256 of the keys, the tasks' own configs and all items; not of where they lie."""
        return self._fingerprint

    def texts(self) -> list[str]:
        """Question and right answer of each item, to be looked for in the training rows."""
        with self._surroundings():
            from llama_exp.evaluation import harness_tasks

            return harness_tasks.item_texts(self._loaded, self._limit)

    def run(self, examinee: Any, watch: Callable[[float], None]) -> Outcome:
        """The tasks' figures, and each item's answers.

        Figures have the harness' names: `acc`, `exact_match,strict-match` where a task filters answers in several
        ways, `acc,<task>` where there are several tasks; `<figure>_error` is the standard error.
        """
        examinee.watch, before = watch, examinee.tokens
        try:
            with self._surroundings():
                from llama_exp.evaluation import harness_tasks
                from llama_exp.evaluation.harness_model import HarnessModel
                from llama_exp.evaluation.harness_results import run_tasks
                from llama_exp.evaluation.harness_surroundings import FEW_SHOT_SEED

                harness = self._harness
                harness_tasks.set_few_shot(self._loaded, harness.num_fewshot, FEW_SHOT_SEED)
                length = harness.max_length or examinee.context_length or DEFAULT_MAX_LENGTH
                model = HarnessModel(examinee, length, self._template(examinee))
                results = run_tasks(
                    self._loaded,
                    model,
                    limit=self._limit,
                    system_instruction=harness.system_instruction,
                    apply_chat_template=harness.apply_chat_template,
                    fewshot_as_multiturn=harness.apply_chat_template,  # as `simple_evaluate` does
                )
        finally:
            examinee.watch = None
        return Outcome(results.figures, results.items, examinee.tokens - before)

    def _surroundings(self) -> Any:
        from llama_exp.evaluation.harness_surroundings import surroundings

        return surroundings(self._harness.online)

    def _template(self, examinee: Any) -> str | None:
        where = f"evaluation.tasks.{self.name}.apply_chat_template"
        return find_template(examinee.tokenizer, where) if self._harness.apply_chat_template else None


def require_lm_eval(where: str) -> None:
    """Fails where lm-evaluation-harness is not installed; `where`: the key or option that asks for it."""
    if importlib.util.find_spec("lm_eval") is None:
        action = "pip install 'llama_exp[eval]', or make the task one of ours (docs/how_to/evaluate.md)"
        raise ConfigError(Problem("lm-eval is not installed", where, "no package lm_eval", action))
