"""lm-evaluation-harness' tasks, found and loaded with their data. Imports lm_eval."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager

from llama_exp.errors import InputError
from llama_exp.evaluation.harness_results import plain
from llama_exp.evaluation.item_texts import list_texts

# Where data lie, in a task's config; its items say which they are.
_WHERE = ("dataset_path", "dataset_name", "dataset_kwargs", "metadata")

_GUIDE = "docs/how_to/evaluate_harness.md shows whole tasks"


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


def set_few_shot(loaded: dict[str, Any], num_fewshot: int | None, seed: int) -> None:
    """How many examples stand before each item, as `simple_evaluate` sets it: where a task says 0 it stays 0."""
    for task in loaded["tasks"].values():
        stated = task.get_config("num_fewshot")
        if stated is None or (num_fewshot is not None and stated != 0):
            task.set_config(key="num_fewshot", value=num_fewshot or 0)
        task.set_fewshot_seed(seed=seed)


def count_items(loaded: dict[str, Any], limit: int | None) -> int:
    """Items of all tasks together."""
    return sum(len(items) for items in _items(loaded, limit).values())


def asked(loaded: dict[str, Any], limit: int | None) -> Any:
    """What decides the questions, as JSON has it: of each task its version, config and items, not where they lie."""
    configs = {name: task.dump_config() for name, task in loaded["tasks"].items()}
    return [
        [
            name,
            str(loaded["tasks"][name].VERSION),
            plain({k: v for k, v in configs[name].items() if k not in _WHERE}),
            items,
        ]
        for name, items in _items(loaded, limit).items()
    ]


def item_texts(loaded: dict[str, Any], limit: int | None) -> list[str]:
    """Question and right answer of each item, without the solved ones in front of it."""
    return [_item_text(task, item) for task in loaded["tasks"].values() for _, item in task.doc_iterator(limit=limit)]


def _items(loaded: dict[str, Any], limit: int | None) -> dict[str, list[Any]]:
    tasks = loaded["tasks"].items()
    return {name: [plain(item) for _, item in task.doc_iterator(limit=limit)] for name, task in tasks}


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


def _item_text(task: Any, item: Any) -> str:
    """Question and answer where the task says them as texts, else all texts of the item."""
    question, answer = task.doc_to_text(item), task.doc_to_target(item)
    if isinstance(answer, int) and not isinstance(answer, bool) and task.get_config("doc_to_choice") is not None:
        choices = task.doc_to_choice(item)
        answer = choices[answer] if 0 <= answer < len(choices) else ""
    texts = [text for text in (question, answer) if isinstance(text, str) and text.strip()]
    return "\n".join(texts or list_texts(item))
