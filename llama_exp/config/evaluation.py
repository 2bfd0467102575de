"""The section `evaluation` of a typed config: what it will give, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_exp.config.schema import TASKS, Config
from llama_exp.config.schema.evaluation import EvaluationConfig, GenerationConfig, HarnessConfig
from llama_exp.errors import Problem
from llama_exp.limits import dataset
from llama_exp.limits.evaluation import (
    FIGURES,
    GENERATION,
    MULTIPLE_CHOICE,
    NAME,
    NAME_WORDS,
    SET,
    task_problems,
)

SECTION = "evaluation"
FILE_KEYS = ("file", "examples_file")


def list_evaluations(config: Config) -> list[str]:
    """The names of a run's sets and tasks."""
    return [*config.evaluation.sets, *config.evaluation.tasks]


def list_figures(config: Config) -> list[str]:
    """The figures that a run's evaluations will give, `evaluation.<name>.<figure>`; of own tasks nothing is known.

    Nor of those of lm-evaluation-harness, which say theirs when they are loaded.
    """
    kinds = dict.fromkeys(config.evaluation.sets, SET) | {
        name: GENERATION if isinstance(node, GenerationConfig) else MULTIPLE_CHOICE
        for name, node in config.evaluation.tasks.items()
        if type(node) in TASKS.values() and not isinstance(node, HarnessConfig)
    }
    return [f"{SECTION}.{name}.{figure}" for name, kind in kinds.items() for figure in FIGURES[kind]]


def list_nodes(config: Config) -> dict[str, Any]:
    """Config key -> node of every set and task."""
    section = config.evaluation
    return {f"{SECTION}.sets.{name}": node for name, node in section.sets.items()} | {
        f"{SECTION}.tasks.{name}": node for name, node in section.tasks.items()
    }


def find_problems(section: EvaluationConfig) -> Iterator[Problem]:
    """Names that cannot be, and what the keys and files of tasks of ours show; it reads no file."""
    counts = Counter([*section.sets, *section.tasks])
    for key in ("sets", "tasks"):
        for name in getattr(section, key):
            where = f"{SECTION}.{key}.{name}"
            if not NAME.fullmatch(name):
                yield Problem("is no possible name", where, repr(name), f"give {NAME_WORDS}")
            elif key == "tasks" and counts[name] > 1:
                action = "give each a name of its own: their figures would be one"
                yield Problem("is the name of a set too", where, name, action)
    for name in section.whole_sets:
        if name not in section.sets:
            action = f"names below evaluation.sets: {', '.join(section.sets) or 'none'}"
            yield Problem("names no set", f"{SECTION}.whole_sets", name, action)
    for name, node in section.sets.items():
        if dataclasses.is_dataclass(node):
            limits = dataclasses.replace(dataset.LIMITS, section=f"{SECTION}.sets.{name}")
            yield from limits.value_problems({key: value for key, value in vars(node).items() if value != "???"})
    for name, node in section.tasks.items():
        if type(node) in TASKS.values():
            where = f"{SECTION}.tasks.{name}"
            yield from task_problems(where, vars(node))
            yield from _missing_files(where, node)


def _missing_files(where: str, node: Any) -> Iterator[Problem]:
    for key in FILE_KEYS:
        file = getattr(node, key, None)
        if file and not Path(os.path.expanduser(file)).is_file():
            found = "a folder" if os.path.isdir(os.path.expanduser(file)) else "no such file"
            action = f"give a file of JSON lines; relative paths start at {Path.cwd()}"
            yield Problem("is no file", f"{where}.{key}", f"{file}: {found}", action)
