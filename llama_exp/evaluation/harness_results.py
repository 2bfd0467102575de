"""lm-evaluation-harness' tasks run with one of its models, and what they give in our words. Imports lm_eval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jinja2
import lm_eval

from llama_exp.errors import InputError

# Resamples for the standard error of a figure that has no formula; the harness' 100000 take minutes in one process.
BOOTSTRAP_ITERATIONS = 1000


class Results(NamedTuple):
    """Figures by name, None where there is none, and a row for each item."""

    figures: dict[str, float | None]
    items: list[dict[str, Any]]


def run_tasks(loaded: dict[str, Any], model: Any, **options: Any) -> Results:
    """Runs tasks.

    Args:
        loaded: by `load_tasks`.
        model: one of the harness'.
        **options: of the harness' `evaluate`: limit, apply_chat_template, system_instruction, fewshot_as_multiturn.

    Raises:
        InputError: an item does not fit the task's templates.
    """
    try:
        results = lm_eval.evaluate(lm=model, task_dict=loaded, bootstrap_iters=BOOTSTRAP_ITERATIONS, **options)
    except jinja2.TemplateError as error:
        action = "compare both (docs/how_to/evaluate_harness.md shows whole tasks)"
        raise InputError.about(
            f"task {', '.join(loaded['tasks'])}", "an item does not fit the task", str(error), action
        ) from error
    names, groups = list(loaded["tasks"]), results.get("groups") or {}
    figures: dict[str, float | None] = {}
    for name, row in groups.items():
        figures |= _figures(row, "" if len(groups) == 1 else name)
    for name in names:
        figures |= _figures(results["results"][name], "" if len(names) == 1 and not groups else name)
    return Results(figures, [row for name in names for row in _items(name, results["samples"][name])])


def _figures(row: Mapping[str, Any], task: str) -> dict[str, float | None]:
    """Numbers of a row of results by our names, with the task's behind a comma; errors without a formula are left out.

    The harness' names are `acc,none` and `acc_stderr,none`: metric and filter.
    """
    figures: dict[str, float | None] = {}
    for key, value in row.items():
        metric, comma, chosen = key.partition(",")
        if comma and isinstance(value, int | float):
            is_error = metric.endswith("_stderr")
            parts = [metric.removesuffix("_stderr"), "" if chosen == "none" else chosen, task]
            name = ",".join(filter(None, parts)) + ("_error" if is_error else "")
            figures[name] = float(value) if math.isfinite(value) else None
    return figures


def _items(task: str, samples: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each item, as JSON has it, with its number in its task; answers and figures of all filters in one."""
    rows: dict[Any, dict[str, Any]] = {}
    for sample in samples:
        row = {"task": task, "item": sample["doc_id"]}
        row |= {"question": sample["doc"], "target": sample["target"], "prompt_sha256": sample["prompt_hash"]}
        row = rows.setdefault(sample["doc_id"], {key: plain(value) for key, value in row.items()})
        behind = "" if sample["filter"] == "none" else f",{sample['filter']}"
        row[f"answers{behind}"] = plain(sample["filtered_resps"])
        row |= {f"{metric}{behind}": plain(sample[metric]) for metric in sample["metrics"]}
    return list(rows.values())


def plain(value: Any) -> Any:
    """The value in JSON's types; numbers that JSON has no name for become text."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(entry) for entry in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
