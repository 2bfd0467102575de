"""A run's saved config.yaml as the whole configuration of a command: `--from <file or run folder>`.

The file is data: it is read as plain values, whose `${...}` mean themselves, and takes the place of conf/config.yaml.
What Hydra needs stands there as it does in ours. Everything is checked as if it had been typed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore

from llama_exp.config import identity
from llama_exp.config.check.composition import show_path
from llama_exp.config.check.typed import TARGET, show
from llama_exp.config.conf_folder import CONF
from llama_exp.config.identity import RECIPE, to_record
from llama_exp.config.schema import SCHEMAS, Config
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.files.yaml_file import read_yaml

CONFIG_FILE = "config.yaml"
NAME = "saved_config"
# Section -> the file of conf/ that has all of its younger keys.
FILES = {
    "evaluation": "evaluation/none.yaml",
    "lora": "lora/default.yaml",
    "model": "model/llama_tiny.yaml",
    "objective": "objective/next_token.yaml",
    "optimizer": "optimizer/adamw.yaml",
    "schedule": "schedule/wsd.yaml",
    "trainer": "trainer/default.yaml",
}
# Keys and sections that are younger than the first runs -> the file of conf/ whose value does what was done without.
YOUNGER = {
    "objective_metric": CONFIG_FILE,
    "evaluation": "evaluation/none.yaml",
    "protocol": "protocol/none.yaml",
    "branch_from": CONFIG_FILE,
    **{
        path: FILES[path.partition(".")[0]]
        for path in (
            *(*identity.YOUNGER, *identity.BESIDE, "trainer.keep_optimizer", "trainer.profile_steps"),
            *("trainer.budget_flops", "trainer.budget_tokens"),
        )
    },
}
Fill = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Saved:
    """A saved config that Hydra knows by `NAME`. file: where it was read. recipe: recorded numbers of algorithms."""

    file: Path
    recipe: dict[str, Any]

    def problems(self, config: Config) -> Iterator[Problem]:
        """One for each algorithm that this version computes with other numbers than the saved run."""
        now = to_record(config)[RECIPE]
        for name in sorted(self.recipe.keys() & now.keys()):
            if self.recipe[name] != now[name]:
                found, action = f"{now[name]}, saved with {self.recipe[name]}", "use the version named in its run.json"
                what = "this version of llama_exp computes with other numbers"
                yield Problem(what, f"{RECIPE}.{name}, in {show_path(self.file)}", show(found), action)


def store(path: Path) -> Saved:
    """Makes the saved config known to Hydra.

    Args:
        path: the file, or the folder that holds it as config.yaml.

    Raises:
        ConfigError: there is no such file, or it holds no plain data.
    """
    file, values = read(path)
    return keep(file, _with_younger(values))


def read(path: Path) -> tuple[Path, dict[str, Any]]:
    """The file, absolute, and what it holds; raises `ConfigError` as `store`."""
    file = (path / CONFIG_FILE if path.is_dir() else path).absolute()
    if not file.is_file():
        action = "name a run's folder or its config.yaml: outputs/<name>/<run>"
        raise ConfigError(Problem("no such file", "--from", str(path), action))
    try:
        return file, read_yaml(file.parent, file.name)
    except InputError as error:
        raise ConfigError(*error.problems) from error


def keep(file: Path, values: Mapping[str, Any], fill: Fill | None = None) -> Saved:
    """Makes the values that were read from a file known to Hydra.

    Args:
        file: for messages.
        values: what it holds.
        fill: adds what Hydra may fill in to the values, whose own `${...}` mean themselves; None: nothing.
    """
    values = dict(values)
    recipe = values.pop(RECIPE, None)
    ours = yaml.safe_load((CONF / CONFIG_FILE).read_text(encoding="utf-8"))
    overrides = [entry for entry in ours["defaults"] if isinstance(entry, dict) and _is_of_hydra(entry)]
    # A new run: the saved one may have gone on with another.
    literal = _literal(values) if fill is None else fill(_literal(values))
    node = {**literal, "resume": "none", "hydra": ours["hydra"], "defaults": [*overrides, "_self_"]}
    ConfigStore.instance().store(NAME, node)
    return Saved(file, recipe if isinstance(recipe, dict) else {})


def refuse_choices(groups: list[str]) -> Iterator[Problem]:
    """A problem for each choice of a part: a saved config has values, and no list of parts."""
    for group in groups:
        action = f"set the keys that differ: {group.rpartition('/')[2]}.<key>=<value>"
        yield Problem("cannot be chosen, because a saved config holds values only", group, "--from", action)


def _with_younger(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config that was saved before a key there was, with that key."""
    filled = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for path, file in YOUNGER.items():
        section, _, key = path.partition(".")
        part = filled if not key else filled.get(section)
        if isinstance(part, dict) and (key or section) not in part and _has_key(part.get(TARGET), key):
            ours = yaml.safe_load((CONF / file).read_text(encoding="utf-8"))
            part[key or section] = ours[key or section] if key or section in ours else ours
    return filled


def _has_key(target: Any, key: str) -> bool:
    """Whether a section has a key: one that builds another class of ours, or one of the user's, may not."""
    if target is None:
        return True
    return target in SCHEMAS and key in {field.name for field in dataclasses.fields(SCHEMAS[target])}


def _is_of_hydra(entry: dict[str, Any]) -> bool:
    return any(key.startswith("override hydra/") for key in entry)


def _literal(node: Any) -> Any:
    """The values with every `${` as OmegaConf takes it for text."""
    if isinstance(node, dict):
        return {key: _literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_literal(value) for value in node]
    return node.replace("${", "\\${") if isinstance(node, str) else node
