"""lm-evaluation-harness' tasks: found, loaded, run with one of its models. Imports lm_eval, as `harness_model` does."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from lm_eval import evaluator, utils
from lm_eval.tasks import TaskManager

from llama_exp.errors import InputError

# Resamples for the standard error of a figure that has no formula; the harness' 100000 take minutes in one process.
BOOTSTRAP_ITERATIONS = 1000
_NOT_IN_FINGERPRINT = ("dataset_path", "dataset_name", "dataset_kwargs", "metadata")  # where data lie; items say which

_GUIDE = "docs/how_to/evaluate_harness.md shows whole tasks"


@dataclass(frozen=True)
class TaskResult:
    """What one task, or a group of them, gave.

    Attributes:
        name: the harness'.
        figures: `acc`, `acc_stderr`, ...: a metric's name, with that of the filter behind a comma unless it is `none`.
        items: how many there were.
        fingerprint: SHA-256 of what is asked, how, and of each item; "" of a group.
        samples: one for each item and filter.
    """

    name: str
    figures: Mapping[str, float]
    items: int
    fingerprint: str
    samples: Sequence[Mapping[str, Any]]


def load_tasks(names: Sequence[str], include_path: Path | None) -> dict[str, Any]:
    """Tasks and groups with their data, as the harness' `TaskManager.load` gives them.

    Args:
        names: of tasks, groups or tags; or paths of their YAML files.
        include_path: folder of more YAML files; they win over the harness' own of the same name.

    Raises:
        InputError: there is no such task, its data are not on this machine, or they do not fit it.
    """
    if include_path is not None and not include_path.is_dir():
        found = "no such folder" if not include_path.exists() else "a file"
        raise InputError.about(include_path, "there are no tasks here", found, f"name the folder; {_GUIDE}")
    manager = _manager(names, include_path)
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in names:
        for kind, found_ones in _load(manager, name, include_path).items():
            loaded[kind] |= found_ones
    return loaded


def run_tasks(loaded: dict[str, Any], model: Any, **options: Any) -> list[TaskResult]:
    """Runs loaded tasks.

    Args:
        loaded: by `load_tasks`; each may be run once.
        model: one of the harness'.
        **options: of the harness' `evaluate`: limit, apply_chat_template, system_instruction, fewshot_as_multiturn.

    Raises:
        InputError: an item does not fit the task's templates.
    """
    try:
        results = evaluator.evaluate(lm=model, task_dict=loaded, bootstrap_iters=BOOTSTRAP_ITERATIONS, **options)
    except jinja2.TemplateError as error:
        where = ", ".join(loaded["tasks"])
        raise InputError.about(where, "an item does not fit the task", str(error), f"compare both; {_GUIDE}") from error
    singles = [_task_result(name, results) for name in loaded["tasks"]]
    groups = [TaskResult(name, _figures(row), 0, "", ()) for name, row in (results.get("groups") or {}).items()]
    return [*singles, *groups]


def set_few_shot(loaded: dict[str, Any], num_fewshot: int | None, seed: int) -> None:
    """How many examples stand before each item, as `simple_evaluate` sets it: where a task says 0 it stays 0."""
    for task in loaded["tasks"].values():
        stated = task.get_config("num_fewshot")
        if stated is None or (num_fewshot is not None and stated != 0):
            task.set_config(key="num_fewshot", value=num_fewshot or 0)
        task.set_fewshot_seed(seed=seed)


def item_texts(loaded: dict[str, Any], limit: int | None) -> dict[str, list[str]]:
    """Question and right answer of each item by task, to be looked for in other texts."""
    return {
        name: [_item_text(task, item) for _, item in task.doc_iterator(limit=limit)]
        for name, task in loaded["tasks"].items()
    }


def _manager(names: Sequence[str], include_path: Path | None) -> TaskManager:
    """With the harness' own tasks only where they are needed: reading 15000 files takes 8 seconds."""
    if include_path is not None or all(_is_file(name) for name in names):
        near = TaskManager(include_path=None if include_path is None else str(include_path), include_defaults=False)
        alone = {*near.all_subtasks, *near.all_tags}
        if all(name in alone or _is_file(name) for name in names):
            return near
    return TaskManager(include_path=None if include_path is None else str(include_path))


def _is_file(name: str) -> bool:
    return name.endswith(".yaml") and Path(name).is_file()


def _load(manager: TaskManager, name: str, include_path: Path | None) -> Mapping[str, Any]:
    try:
        if name not in manager.task_index and not _is_file(name):
            raise _unknown(manager, name, include_path)
        return manager.load([name])
    except InputError:
        raise
    except ConnectionError as error:
        what = "its data are not on this machine, and it is not asked for elsewhere"
        action = (
            "download them once with --online (in YAML online: true), on a machine with a network under the same "
            f"HF_HOME; or make a task on a file of yours: {_GUIDE}"
        )
        raise InputError.about(f"task {name}", what, str(error), action) from error
    except FileNotFoundError as error:
        action = f"data_files counts from the folder of the command, not of the YAML: write the whole path; {_GUIDE}"
        raise InputError.about(f"task {name}", "a file of it is not there", str(error), action) from error
    except Exception as error:  # a task is somebody's program: whatever it raises says what is wrong with it
        found = f"{type(error).__name__}: {error}"
        raise InputError.about(
            f"task {name}", "it cannot be loaded", found[:500], f"mend its YAML; {_GUIDE}"
        ) from error


def _unknown(manager: TaskManager, name: str, include_path: Path | None) -> InputError:
    import difflib

    near = difflib.get_close_matches(name, manager.all_tasks, n=3)
    action = f"did you mean {' or '.join(near)}? " if near else ""
    found = name
    if include_path is not None:
        entries = [entry for entry in manager.task_index.values() if entry.yaml_path is not None]
        here = sorted(entry.name for entry in entries if include_path in Path(entry.yaml_path).parents)
        read = {Path(entry.yaml_path) for entry in entries}
        unread = sorted(str(path) for path in include_path.rglob("*.yaml") if path not in read)
        found += f"; tasks in {include_path}: {', '.join(here[:10]) or 'none'}"
        if unread:
            found += f"; no task could be read from {', '.join(unread[:5])}"
    else:
        action += "tasks of your own: name their folder with --include-path (in YAML include_path); "
    return InputError.about(f"task {name}", "there is no such task", found, action + _GUIDE)


def _task_result(name: str, results: Mapping[str, Any]) -> TaskResult:
    samples, row = results["samples"][name], results["results"][name]
    asked = {key: value for key, value in results["configs"][name].items() if key not in _NOT_IN_FINGERPRINT}
    hashes = [[sample[key] for key in ("doc_hash", "prompt_hash", "target_hash", "filter")] for sample in samples]
    parts = [name, results["versions"].get(name), results["n-shot"].get(name), asked, hashes]
    text = json.dumps(parts, sort_keys=True, default=str)
    count = len({sample["doc_id"] for sample in samples})
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return TaskResult(name, _figures(row), count, fingerprint, [_sample(sample) for sample in samples])


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a row of results by our names; `N/A`, an error that there is no formula for, is left out."""
    figures = {}
    for key, value in row.items():
        if "," in key and isinstance(value, int | float):
            figures[key.removesuffix(",none")] = float(value)
    return figures


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """An item's row, as JSON has it."""
    row = {
        "item": sample["doc_id"],
        "filter": sample["filter"],
        "target": sample["target"],
        "responses": sample["filtered_resps"],
        **{metric: sample[metric] for metric in sample["metrics"]},
        "prompt_sha256": sample["prompt_hash"],
        "question": sample["doc"],
    }
    return {key: _plain(value) for key, value in row.items()}


def _plain(value: Any) -> Any:
    """The value in JSON's types; numbers that JSON has no name for become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(entry) for entry in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(utils.handle_non_serializable(value))


def _item_text(task: Any, item: Any) -> str:
    """Question and answer where the task says them as texts, else all texts of the item."""
    question, answer = task.doc_to_text(item), task.doc_to_target(item)
    if isinstance(answer, int) and not isinstance(answer, bool) and task.get_config("doc_to_choice") is not None:
        choices = task.doc_to_choice(item)
        answer = choices[answer] if 0 <= answer < len(choices) else ""
    texts = [text for text in (question, answer) if isinstance(text, str) and text.strip()]
    return "\n".join(texts or _texts(item))


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return [value]
    entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for entry in entries for text in _texts(entry)]
