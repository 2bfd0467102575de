"""A run's saved config.yaml as the whole configuration of a command: `--from <file or run folder>`.

The file is data: it is read as plain values, whose `${...}` mean themselves, and takes the place of conf/config.yaml.
What Hydra needs stands there as it does in ours. Everything is checked as if it had been typed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore

from llama_exp.config.check.composition import show_path
from llama_exp.config.conf_folder import CONF
from llama_exp.config.identity import RECIPE
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.files.yaml_file import read_yaml

CONFIG_FILE = "config.yaml"
NAME = "saved_config"


def store(path: Path) -> str:
    """Makes the saved config known to Hydra, and returns its name there.

    Args:
        path: the file, or the folder that holds it as config.yaml.

    Raises:
        ConfigError: there is no such file, or it holds no plain data.
    """
    file = path / CONFIG_FILE if path.is_dir() else path
    if not file.is_file():
        action = "name a run's folder or its config.yaml: outputs/<name>/<run>"
        raise ConfigError(Problem("no such file", "--from", str(path), action))
    try:
        values = read_yaml(file.parent, file.name)
    except InputError as error:
        raise ConfigError(*error.problems) from error
    values.pop(RECIPE, None)
    ours = yaml.safe_load((CONF / CONFIG_FILE).read_text(encoding="utf-8"))
    overrides = [entry for entry in ours["defaults"] if isinstance(entry, dict) and _is_of_hydra(entry)]
    # A new run: the saved one may have gone on with another.
    node = {**_literal(values), "resume": "none", "hydra": ours["hydra"], "defaults": [*overrides, "_self_"]}
    ConfigStore.instance().store(NAME, node, provider=show_path(file.resolve()))
    return NAME


def _is_of_hydra(entry: dict[str, Any]) -> bool:
    return any(key.startswith("override hydra/") for key in entry)


def _literal(node: Any) -> Any:
    """The values with every `${` as OmegaConf takes it for text."""
    if isinstance(node, dict):
        return {key: _literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_literal(value) for value in node]
    return node.replace("${", "\\${") if isinstance(node, str) else node
