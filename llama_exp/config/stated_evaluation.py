"""The section `evaluation` of a command: out of a choice, a file, and sets and tasks that its options name.

All of it is composed and checked as the same section of a run would be, so that one file serves both.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from llama_exp.config.check import check_arguments
from llama_exp.config.check.typed import Typing
from llama_exp.config.evaluation import SECTION, find_problems
from llama_exp.config.quoting import quote
from llama_exp.config.schema import Config
from llama_exp.config.schema.evaluation import EvaluationConfig
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.files.yaml_file import read_yaml
from llama_exp.limits.evaluation import NAME, NAME_WORDS

STORED = "stated"  # name of the file's content among the choices
RECORDS = (".jsonl", ".json", ".ndjson")


@dataclass(frozen=True)
class Stated:
    """What the options say.

    evaluation: a choice of conf/evaluation, or a YAML file; None: neither. sets: name -> file or pattern. tasks: name
    -> YAML file. harness: name -> keys of tasks of lm-evaluation-harness. limit, batch_size: as the section's keys;
    None: as it says. trusted_modules: import prefixes.
    """

    evaluation: str | None = None
    sets: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)
    harness: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limit: int | None = None
    batch_size: int | None = None
    trusted_modules: tuple[str, ...] = ()


def compose_evaluation(stated: Stated) -> Config:
    """A config whose section `evaluation` is what the options say; its other sections are the defaults.

    Raises:
        ConfigError: with every mistake.
    """
    with _forgotten_choices():
        config = check_arguments(_lines(stated)).config
    assert config is not None, "no option of Hydra's is among the lines"
    return config


def _lines(stated: Stated) -> list[str]:
    """The overrides that say the same; what stands in files becomes a choice that they name."""
    lines = ["logger=none", f"trusted_modules=[{','.join(map(quote, stated.trusted_modules))}]"]
    if stated.evaluation is not None:
        lines.append(f"{SECTION}={_choice(stated.evaluation)}")
    for name, file in stated.sets.items():
        _require_name("--set", name)
        kind = "jsonl" if file.endswith(RECORDS) else "text_files"
        lines += [f"+dataset@{SECTION}.sets.{name}={kind}", f"{SECTION}.sets.{name}.files=[{quote(file)}]"]
    if stated.sets:
        lines.append(f"{SECTION}.whole_sets=[{','.join(stated.sets)}]")
    for number, (name, file) in enumerate(stated.tasks.items()):
        _require_name("--task", name)
        stored = f"{STORED}_{number}"
        ConfigStore.instance().store(stored, _task(file), group=f"{SECTION}/task", provider="command-line")
        lines.append(f"+{SECTION}/task@{SECTION}.tasks.{name}={stored}")
    for name, keys in stated.harness.items():
        _require_name("--harness", name)
        stored = f"{STORED}_harness_{name}"
        node = {"defaults": ["harness", "_self_"], **keys}
        ConfigStore.instance().store(stored, node, group=f"{SECTION}/task", provider="command-line")
        lines.append(f"+{SECTION}/task@{SECTION}.tasks.{name}={stored}")
    for key in ("limit", "batch_size"):
        if getattr(stated, key) is not None:
            lines.append(f"{SECTION}.{key}={getattr(stated, key)}")
    return lines


@contextlib.contextmanager
def _forgotten_choices() -> Iterator[None]:
    """Choices that the block adds are none afterwards."""
    store = ConfigStore.instance()
    before = copy.deepcopy(store.repo)
    try:
        yield
    finally:
        store.repo = before


def read_recorded(data: Any, limit: int | None, batch_size: int | None) -> EvaluationConfig:
    """The section of a run's config.yaml, which is data: it may name classes of ours alone.

    Args:
        data: its content.
        limit: in place of the recorded one, unless None.
        batch_size: likewise.

    Raises:
        ConfigError: it has a class of somebody else's, or is damaged.
    """
    given = {key: value for key, value in (("limit", limit), ("batch_size", batch_size)) if value is not None}
    typing_pass = Typing()
    section = typing_pass.section(SECTION, {**data, **given} if isinstance(data, dict) else data, [])
    problems = typing_pass.problems or list(find_problems(section))
    if problems:
        raise ConfigError(*problems)
    return section


def type_dataset(data: Any) -> Any:
    """The section `dataset` of a run's config.yaml; arguments and errors as above."""
    typing_pass = Typing()
    section = typing_pass.section("dataset", data, [])
    if typing_pass.problems:
        raise ConfigError(*typing_pass.problems)
    return section


def _choice(text: str) -> str:
    """The name of a choice, or of a file's content after it was stored among them."""
    if not (text.endswith((".yaml", ".yml")) or "/" in text):
        return text
    node = _read("--evaluation", text)
    defaults = node.pop("defaults", None) or ["_self_"]
    if "none" not in defaults:
        defaults = ["none", *defaults]
    ConfigStore.instance().store(STORED, {"defaults": defaults, **node}, group=SECTION, provider="command-line")
    return STORED


def _task(file: str) -> dict[str, Any]:
    """A task's file over the defaults of its class."""
    node = _read("--task", file)
    target = str(node.get("_target_", ""))
    kinds = {"MultipleChoice": "multiple_choice", "Generation": "generation", "PythonChoices": "python_choices"} | {
        "Harness": "harness"
    }
    kind = kinds.get(target.removeprefix("llama_exp.evaluation."))
    if not target:
        kind = "generation" if "targets" in node else "multiple_choice"
    return node if kind is None else {"defaults": [kind, "_self_"], **node}


def _read(option: str, file: str) -> dict[str, Any]:
    path = Path(file).expanduser()
    if not path.is_file():
        action = f"give a YAML file; relative paths start at {Path.cwd()}"
        raise ConfigError(Problem("no such file", option, file, action))
    try:
        node = read_yaml(path.parent, path.name)
    except InputError as error:
        raise ConfigError(*error.problems) from error
    return node


def _require_name(option: str, name: str) -> None:
    if not NAME.fullmatch(name) or not re.fullmatch(r"[\w-]+", name):
        action = f"give <name>=<file>; a name has {NAME_WORDS}, and no '.' here"
        raise ConfigError(Problem("is no possible name", option, repr(name), action))
