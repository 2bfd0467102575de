"""From a composed config to plain data: interpolations filled in, failures collected instead of raised."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llama_exp.config.check import budget_steps
from llama_exp.config.check.typed import MISSING, build_config
from llama_exp.config.schema import Config
from llama_exp.config.stored import resolve_stored
from llama_exp.errors import ConfigError, LlamaExpError, Problem
from llama_exp.files.latest import without_latest
from llama_exp.files.redact import remember_secrets

HYDRA = "hydra"
# Keys that hold places on this machine: they and their hash must mean the same tomorrow.
PLACES = (
    ("resume",),
    ("branch_from",),
    ("preset", "source"),
    ("lora", "source"),
    ("tokenizer", "file"),
    ("dataset", "files"),
)
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


class Resolved:
    """The app part of a composed config as plain data.

    data: nested dicts, lists and scalars; what could not be filled in is `???`.
    references: dotted path -> the paths that its value is taken from.
    problems: one for each interpolation that leads nowhere, or what its function says is wrong elsewhere.
    unfilled: paths of these interpolations.
    """

    def __init__(self, cfg: DictConfig):
        self._cfg = cfg
        self.references: dict[str, set[str]] = {}
        self.problems: list[Problem] = []
        self.unfilled: set[str] = set()
        self.data: dict[Any, Any] = {key: self._value(cfg, key, str(key)) for key in cfg if key != HYDRA}
        for *sections, key in PLACES:
            _settle(self.data, sections, key)
        remember_secrets(self.data)

    def sources(self, path: str) -> set[str]:
        """The paths that a value is taken from, directly or through others."""
        found: set[str] = set()
        open_paths = [path]
        while open_paths:
            new = self.references.get(open_paths.pop(), set()) - found
            found |= new
            open_paths += new
        return found

    def _value(self, parent: DictConfig | ListConfig, key: Any, path: str) -> Any:
        if OmegaConf.is_interpolation(parent, key):
            unfilled: Any = OmegaConf.to_container(parent, resolve=False)
            raw = str(unfilled[key])
            self.references[path] = set(_REFERENCE.findall(raw))
            if budget_steps.CALL in raw:
                self.references[path].update(budget_steps.list_reads(self._cfg))
            try:
                value = parent[key]
            except (OmegaConfBaseException, RecursionError, ValueError, TypeError) as error:
                problems = _find_problems(error) or [_unresolved(path, raw, error)]
                self.problems += [problem for problem in problems if problem not in self.problems]
                self.unfilled.add(path)
                return MISSING
        elif OmegaConf.is_missing(parent, key):
            return MISSING
        else:
            value = parent[key]
        if isinstance(value, DictConfig):
            return {name: self._value(value, name, f"{path}.{str(name)}") for name in value}
        if isinstance(value, ListConfig):
            return [self._value(value, index, f"{path}.{index}") for index in range(len(value))]
        return value


def _settle(data: Any, sections: list[str], key: str) -> None:
    """Replaces links called `latest` in a value, or in the values of a list, by what they lead to today."""
    for section in sections:
        data = data.get(section) if isinstance(data, dict) else None
    if not isinstance(data, dict):  # a mistake, which is told with the others
        return
    value = data.get(key)
    if isinstance(value, str):
        data[key] = without_latest(value)
    elif isinstance(value, list):
        data[key] = [without_latest(entry) if isinstance(entry, str) else entry for entry in value]


def _find_problems(error: BaseException | None) -> list[Problem]:
    """What the function of an interpolation itself found wrong; OmegaConf raises its error anew."""
    while error is not None:
        if isinstance(error, LlamaExpError):
            return list(error.problems)
        error = error.__cause__ or error.__context__
    return []


def _unresolved(path: str, raw: str, error: Exception) -> Problem:
    """What is wrong with an interpolation, in one line; environment values never appear in OmegaConf's messages."""
    reason = "it refers to itself" if isinstance(error, RecursionError) else str(error).splitlines()[0]
    return Problem(f"cannot be filled in: {reason}", path, raw, "give a value, or a key that exists: ${section.key}")


def to_config(cfg: DictConfig) -> Config:
    """The typed config of a composed one; the only way across the frontier.

    Raises:
        ConfigError: with every unknown key, missing value and wrong type.
    """
    resolved = Resolved(cfg)
    if resolved.problems:
        raise ConfigError(*resolved.problems)
    return resolve_stored(build_config(resolved.data))
