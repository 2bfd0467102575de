"""Evaluations out of the section `evaluation`, in two halves.

`open_parts` stands before anything that takes time: data sets are looked for, items of tasks are read. `build` has the
model: it makes the rows of sets, and the object that the trainer asks.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llama_exp.config.evaluation import SECTION
from llama_exp.config.identity import to_dict
from llama_exp.config.instantiate import instantiate
from llama_exp.config.schema.evaluation import EvaluationConfig
from llama_exp.errors import InputError
from llama_exp.evaluation.evaluations import Evaluations, Member
from llama_exp.evaluation.harness import Harness, OpenHarness
from llama_exp.evaluation.outcome import Outcome
from llama_exp.evaluation.overlap_check import check_overlap, rows_of, tell
from llama_exp.evaluation.tasks import OpenTask
from llama_exp.files.evaluation_file import write_items


@dataclass(frozen=True)
class Parts:
    """What is there without a model.

    section: of the config. sets: name -> data set, open. tasks: with their items.
    """

    section: EvaluationConfig
    sets: Mapping[str, Any] = field(default_factory=dict)
    tasks: list[OpenTask | OpenHarness] = field(default_factory=list)


@dataclass(frozen=True)
class Use:
    """How a model is evaluated.

    batch_size: rows, choices or prompts at a time, where the section states none. loss_on: which tokens of sets count.
    jit: name of a `Jit`. cache_dir: of rows. folder: where items' results go; None: nowhere. keeps: whether files that
    are there stay. context_length: tokens that the model was made for; None: not known. train: the rows that it was
    trained on (`llama_exp.dataset.Examples`), to be searched for items; None: they are not here.
    """

    batch_size: int
    loss_on: str
    jit: str
    cache_dir: str
    folder: Path | None
    keeps: bool = False
    context_length: int | None = None
    train: Any = None


def open_parts(section: EvaluationConfig, trusted_modules: list[str], cache_dir: str) -> Parts:
    """Data sets that are there, and tasks whose items are read. Imports no framework, but for what own classes do.

    Raises:
        ConfigError: a class refuses its arguments. InputError: a file is missing, damaged or empty.
    """
    sets = {name: instantiate(node, trusted_modules, f"{SECTION}.sets.{name}") for name, node in section.sets.items()}
    for name, dataset in sets.items():
        with _about_set(name):
            dataset.look()
    made = {name: instantiate(node, trusted_modules, f"{SECTION}.tasks.{name}") for name, node in section.tasks.items()}
    tasks = [
        _open_task(name, task, to_dict(section.tasks[name]), cache_dir, section.limit) for name, task in made.items()
    ]
    for name, dataset in sets.items():
        with _about_set(name):
            dataset.open(cache_dir)
    return Parts(section, sets, tasks)


def _open_task(name: str, task: Any, node: Mapping[str, Any], cache_dir: str, limit: int | None):
    if isinstance(task, Harness):
        return OpenHarness(name, task, node, limit)
    return OpenTask(name, task, node, cache_dir, limit)


def build(parts: Parts, model, use: Use, further: tuple[Member, ...] = ()) -> Evaluations:
    """The evaluations of a model.

    Args:
        parts: of `open_parts`.
        model: a `LlamaCausalLM` with its tokenizer.
        use: how.
        further: evaluations of another kind, behind those of the section.

    Raises:
        InputError: a set has no rows.
    """
    batch_size = parts.section.batch_size or use.batch_size
    sets = _build_sets(parts, model, use, batch_size)
    tasks = _build_tasks(parts, model, batch_size, use.context_length)
    return Evaluations(
        [*sets, *tasks, *further],
        parts.section.every_steps,
        use.folder,
        use.keeps,
        parts.section.at_start,
        _find_overlaps([*sets, *parts.tasks], parts, model, use),
    )


def _find_overlaps(evaluations: list[Any], parts: Parts, model, use: Use) -> dict[str, float | None]:
    """Name -> share of the items that stand in the training rows too; told, and written beside the items' results."""
    if use.train is None or not parts.section.check_overlap:
        return {}
    items = {evaluation.name: evaluation.texts() for evaluation in evaluations}
    found = check_overlap(use.train, model.tokenizer, items, use.cache_dir)
    for name, overlap in found.items():
        tell(name, overlap)
        if use.folder is not None and overlap.overlapping:
            write_items(use.folder, f"{name}-overlap", None, rows_of(overlap))
    return {name: overlap.share for name, overlap in found.items()}


def _build_sets(parts: Parts, model, use: Use, batch_size: int) -> list[Any]:
    if not parts.sets:
        return []
    from llama_exp import backend
    from llama_exp.evaluation.sets import SetEvaluation, prepare_set

    jit, _ = backend.resolve_jit(use.jit, model.backbone.compute_dtype)
    members = []
    for name, dataset in parts.sets.items():
        whole = name in parts.section.whole_sets
        with _about_set(name):
            rows = prepare_set(dataset, model.tokenizer, use.cache_dir, use.loss_on, whole)
        members.append(SetEvaluation(name, rows, model, batch_size, jit, fuse=use.jit != "false"))
    return members


def _build_tasks(parts: Parts, model, batch_size: int, context_length: int | None) -> list[Member]:
    if not parts.tasks:
        return []
    from llama_exp.evaluation.examinee import Examinee

    examinee = Examinee(model, batch_size, context_length)
    return [_TaskEvaluation(task, examinee) for task in parts.tasks]


@contextlib.contextmanager
def _about_set(name: str) -> Iterator[None]:
    """Messages about the keys of `dataset` are about those of the set."""

    def renamed(text: str) -> str:
        return re.sub(r"\bdataset\.(?=[a-z*])", f"{SECTION}.sets.{name}.", text)

    try:
        yield
    except InputError as error:
        problems = [replace(p, where=renamed(p.where), action=renamed(p.action)) for p in error.problems]
        raise InputError(*problems) from error


class _TaskEvaluation:
    """An open task with the model that it asks."""

    def __init__(self, task: OpenTask | OpenHarness, examinee):
        self.name, self.kind, self.size = task.name, task.kind, task.size
        self._task, self._examinee = task, examinee

    def fingerprint(self) -> str:
        return self._task.fingerprint()

    def run(self, watch: Callable[[float], None]) -> Outcome:
        return self._task.run(self._examinee, watch)
