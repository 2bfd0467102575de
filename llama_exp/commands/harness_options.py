"""The options of `llama-exp evaluate` about lm-evaluation-harness. Imports no framework, and lm-eval neither."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from llama_exp.commands.parser import Parser, count
from llama_exp.errors import ConfigError, Problem
from llama_exp.evaluation.harness import require_lm_eval

_DEPENDENT = ("include_path", "num_fewshot", "online", "chat")


def add_arguments(parser: Parser) -> None:
    """Tasks and how they are asked."""
    add = parser.add_argument
    add(
        "--harness",
        action="append",
        metavar="TASK[,TASK]",
        help="tasks of lm-evaluation-harness (pip install 'llama_exp[eval]'); may be given again",
    )
    add("--include-path", metavar="DIR", help="of --harness: YAML files of more tasks")
    add("--num-fewshot", type=count, metavar="N", help="of --harness: solved items before each (default: as it says)")
    add("--chat", action="store_true", help="of --harness: ask by the model's own chat template")
    add("--online", action="store_true", help="of --harness: download data that are not here")


def read(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Keys of each task by a name of its own, as `evaluation.tasks` has them.

    Raises:
        ConfigError: an option that belongs to --harness stands alone, a task is named twice, or lm-eval is missing.
    """
    tasks = [task for word in options.harness or () for task in word.split(",")]
    if options.harness is None:
        given = {name: getattr(options, name) for name in _DEPENDENT}
        alone = next((name for name, value in given.items() if value is not None and value is not False), None)
        if alone is not None:
            option = "--" + alone.replace("_", "-")
            raise ConfigError(
                Problem("has no effect without --harness", option, option, "name tasks: --harness <task>")
            )
        return {}
    if not all(task.strip() for task in tasks):
        action = "name tasks, with a comma between them: --harness arc_easy,hellaswag"
        raise ConfigError(Problem("names no task", "--harness", ",".join(tasks) or "''", action))
    require_lm_eval("--harness")
    found: dict[str, dict[str, Any]] = {}
    for task in map(str.strip, tasks):
        name = re.sub(r"[^A-Za-z0-9_-]", "_", Path(task).name.removesuffix(".yaml"))
        if name in found:
            action = "name it once; of files with the same name, rename one"
            raise ConfigError(Problem("is given twice", "--harness", task, action))
        found[name] = {
            "tasks": [task],
            "include_path": options.include_path,
            "num_fewshot": options.num_fewshot,
            "apply_chat_template": options.chat,
            "online": options.online,
        }
    return found
