"""`llama-exp explain`: which file and line, or which argument, gives a key its value, and what that overrode."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_exp.commands.parser import Parser
from llama_exp.config import explain as explaining
from llama_exp.config.check.typed import show
from llama_exp.config.explain import text
from llama_exp.errors import ConfigError, ExitCode, Problem
from llama_exp.files.shown_path import show_path
from llama_exp.results import RunResult, load_run

DESCRIPTION = """Says why each KEY has its value in what `llama-exp train` would do with the same command line: the file
and line that set it, or the argument, or the keys that it was filled in from; and what it overrode. A KEY is one value
(lora.rank), or a part (lora). Of a sweep, the values of its points."""
EXAMPLES = [
    "llama-exp explain trainer.max_steps schedule.warmup_steps model=llama3_2_1b",
    "llama-exp explain lora experiment=python_qa_lora lora.alpha=8",
    "llama-exp explain lora.rank -m lora.rank=4,8",
    "llama-exp explain --all sweep=lora_grid",
    "llama-exp explain optimizer.learning_rate --run outputs/default/latest",
]
# Options of `train` that may have their value in a word behind them; the first say where a configuration is from.
PLACES = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--from")
WITH_VALUE = (*PLACES, "--cfg", "-c", "--package", "-p", "--info", "-i")
MOST_BLOCKS = 12  # keys that are told in full; more become a table


def main(arguments: list[str]) -> int:
    """Prints the explanations; returns the exit code: that of `train` for a command line that it would refuse."""
    parser = Parser("explain", DESCRIPTION, EXAMPLES)
    parser.usage = "llama-exp explain KEY... [<part>=<choice> | <key>=<value> ...]"
    parser.add_argument("--all", action="store_true", help="every key of the configuration")
    parser.add_argument("--run", metavar="FOLDER", help="of a run that was begun, instead of a command line")
    options, rest = parser.parse_known_args(arguments)
    names, words = _split(rest)
    if not names and not options.all:
        action = "name a key or a part: llama-exp explain lora.rank; or --all"
        raise ConfigError(Problem("there is nothing to explain", "llama-exp explain", "no key", action))
    if options.run is not None:
        return _explain_run(None if options.all else names, words, load_run(options.run))
    labels = {word: f"argument {number}" for number, word in enumerate(arguments, start=1) if word in words}
    explained = explaining.explain(None if options.all else names, words, labels)
    _print(explained, is_table=options.all or _names_parts(names, explained))
    return _tell_problems(explained)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The keys, and the options and overrides."""
    names: list[str] = []
    rest: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        key = word.removesuffix("=")  # as a shell completes it
        if "=" in key or word.startswith(("-", "~")) or before in WITH_VALUE:
            rest.append(word)
        else:
            names.append(key)
    return names, rest


def _explain_run(names: list[str] | None, words: Sequence[str], run: RunResult) -> int:
    """Explains the keys of a run by today's files, and says where it had other values."""
    if words:
        action = "leave them out, or leave --run out"
        raise ConfigError(Problem("a run has its own overrides", "--run", " ".join(words), action))
    labels = {line: f"override {number} of the run" for number, line in enumerate(run.overrides, start=1)}
    arguments = [*_options_of(run), *run.overrides]
    explained = explaining.explain(names, arguments, labels, is_one_job=True)
    _print(explained, is_table=names is None or _names_parts(names, explained))
    changed = _find_changes(run.values, explained.values)
    if changed:
        print(f"\nThe files or the program changed since {show_path(run.folder)}, which had:")
        print(
            "\n".join(f"  {key} = {show(value)}, today {show(changed[key][1])}" for key, (value, _) in changed.items())
        )
    return ExitCode.OK


def _options_of(run: RunResult) -> list[str]:
    """The options of the run's command that say where its configuration is from."""
    words = shlex.split(str(run.record.get("command", "")))
    home = Path(str(run.record.get("working_folder", ".")))
    found = []
    for word, value in zip(words, [*words[1:], ""], strict=True):
        option, has_value, joined = word.partition("=")
        if option in PLACES:
            given = joined if has_value else value
            found += [option, given if option in ("--config-name", "-cn") else str(home / given)]
    return found


def _find_changes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key -> the run's value and today's, for keys that both have."""
    both = [key for key in recorded if key in now and key != "resume"]
    return {key: (recorded[key], now[key]) for key in both if recorded[key] != now[key]}


def _names_parts(names: Sequence[str], explained: explaining.Explained) -> bool:
    count = len(explained.points[0].explanations) if explained.points else 0
    return count > max(len(names), 0) or count > MOST_BLOCKS


def _print(explained: explaining.Explained, is_table: bool) -> None:
    if not explained.points:
        return
    lines = text.list_part_lines(explained) if is_table else text.list_key_lines(explained)
    print("\n".join(lines))
    if is_table and (files := text.list_file_lines(explained)):
        print("\n".join(["", "files, in the order of their merge:", *files]))
    if explained.num_points is None:
        print(f"\nA search chooses {', '.join(explained.space)}; the rest is that of its space's first points.")
    elif explained.num_points > len(explained.points):
        print(f"\nOf {explained.num_points} jobs, the first and those that differ from it in one key were looked at.")


def _tell_problems(explained: explaining.Explained) -> int:
    if explained.problems:
        print("\nThe command line as it is cannot be trained:", file=sys.stderr)
        raise ConfigError(*explained.problems)
    return ExitCode.OK
