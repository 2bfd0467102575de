"""A typed config that was composed from overrides, and shows itself as YAML."""

from __future__ import annotations

import dataclasses
import html
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from llama_exp.config.check import check_arguments, to_dict
from llama_exp.config.identity import flatten
from llama_exp.config.schema import Config
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.redact import redact

_SWEEPS = "run it as a command, llama-exp train -m ..., and read what it leaves with load_sweep"


class ComposedConfig(Config):
    """A whole run's config, values by attribute: `config.trainer.max_steps`.

    Attributes:
        overrides: what it was composed of; None: it was not composed.
        config_dir: the user's own folder of choices, or None.
    """

    # Not annotated as fields of a dataclass, which would be keys of the config.
    overrides: tuple[str, ...] | None = None
    config_dir: str | None = None

    def __repr__(self) -> str:
        return _to_yaml(to_dict(self)).rstrip("\n")

    def _repr_html_(self) -> str:
        values = to_dict(self)
        scalars = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
        stated = {line.lstrip("+~").partition("=")[0].partition(".")[0] for line in self.overrides or ()}
        sections = (
            f"<details{' open' if name in stated else ''}><summary><code>{name}</code></summary>{_block(values[name])}"
            "</details>"
            for name in values
            if name not in scalars
        )
        return f"<div>{_block(scalars)}{''.join(sections)}</div>"


def compose(*overrides: str, config_dir: str | os.PathLike[str] | None = None) -> ComposedConfig:
    """The config that `llama-exp train` would have with these overrides.

    Args:
        *overrides: `part=choice` and `key=value`, each a text of its own, as on the command line.
        config_dir: a folder of your own choices, as `--config-dir`.

    Raises:
        ConfigError: with every mistake that was found; nothing of Keras is imported.
    """
    lines = tuple(overrides)
    problems = list(_find_misfits(lines))
    if problems:
        raise ConfigError(*problems)
    folder = None if config_dir is None else str(Path(config_dir).expanduser())
    command = check_arguments([*([] if folder is None else [f"--config-dir={folder}"]), *lines])
    if command.sweep is not None or command.config is None:
        raise ConfigError(Problem("this is a sweep, and a config is one run's", "compose", " ".join(lines), _SWEEPS))
    fields = dataclasses.fields(command.config)
    composed = ComposedConfig(**{field.name: getattr(command.config, field.name) for field in fields})
    composed.overrides, composed.config_dir = lines, folder
    return composed


def compose_again(arguments: Sequence[Config | str], config_dir: str | os.PathLike[str] | None) -> ComposedConfig:
    """The config of what `train` was given: overrides, or a composed config and overrides that win over its own.

    It is composed anew, so that what was changed in the object meanwhile is found, and not trained unchecked.

    Raises:
        ConfigError: with every mistake; also for a config that was not composed, or was changed afterwards.
    """
    configs = [given for given in arguments if isinstance(given, Config)]
    lines = [given for given in arguments if not isinstance(given, Config)]
    if not configs:
        return compose(*lines, config_dir=config_dir)
    if len(configs) > 1:
        action = 'call it once for each; overrides may stand behind: train(config, "seed=1")'
        raise ConfigError(Problem("trains one config at a time", "train", f"{len(configs)} configs", action))
    (given,) = configs
    if not isinstance(given, ComposedConfig) or given.overrides is None:
        action = 'compose it with what differs as an override: train(config, "seed=1")'
        raise ConfigError(Problem("this config was not composed", "train", type(given).__name__, action))
    own = compose(*given.overrides, config_dir=given.config_dir)
    changes = list(_find_changes(to_dict(own), to_dict(given)))
    if changes:
        raise ConfigError(*changes)
    replaced = {_key_of(str(line)) for line in lines}
    kept = [line for line in given.overrides if _key_of(line) not in replaced]
    return compose(*kept, *lines, config_dir=given.config_dir if config_dir is None else config_dir)


def _find_misfits(lines: Sequence[object]) -> Iterator[Problem]:
    """What is an option of the command line, and no override, or says how a command runs."""
    for line in lines:
        if not isinstance(line, str):
            action = 'give each override as a text of its own: compose("lora.rank=8", "seed=1")'
            yield Problem("is not an override", "compose", repr(line)[:80], action)
        elif line in ("-m", "--multirun") or line.startswith("sweep="):
            yield Problem("is a sweep, and a config is one run's", line, line, _SWEEPS)
        elif line.startswith("-"):
            action = "leave it out; config_dir= stands for --config-dir"
            yield Problem("is an option of the command line", line.partition("=")[0], line, action)
        elif line.lstrip("+~").startswith(("hydra.", "hydra/")):
            action = "leave it out; train(..., folder=...) chooses the run's folder"
            yield Problem("says how a command runs, and here there is none", line.partition("=")[0], line, action)


def _find_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Problem]:
    old, new = flatten(before), flatten(now)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            found = f"{new.get(key)}, composed with {old.get(key)}"
            action = f'leave the config as it is and give the override: train(config, "{key}={new.get(key)}")'
            yield Problem("was changed after it was composed", key, found, action)


def _key_of(line: str) -> str:
    return line.lstrip("+~").partition("=")[0]


def _block(values: Mapping[str, Any]) -> str:
    return f'<pre style="margin:0 0 0 1em">{html.escape(_to_yaml(values))}</pre>'


def _to_yaml(values: Mapping[str, Any]) -> str:
    return redact(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=100))
