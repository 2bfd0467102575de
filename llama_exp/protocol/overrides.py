"""Overrides that a run was given beside what the protocol states for its stage: with them it is another experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import yaml

from llama_exp.config.check.stages import key_of
from llama_exp.config.identity import is_science
from llama_exp.config.schema.protocol import StageConfig
from llama_exp.limits.protocol import find_places
from llama_exp.results.decisive import canonical

_OF_THE_STAGE = ("experiment", "protocol", "hydra", "sweep")


def list_unstated(overrides: Sequence[str], stage: StageConfig) -> list[str]:
    """The overrides that decide a result and that neither the stage nor its quick variant states.

    Args:
        overrides: of a run, as they were given.
        stage: as its protocol has it; folders and models in braces stand for anything.
    """
    stated: dict[str, set[str] | None] = {}
    for key, text in _list_stated(stage):
        if find_places(text) or stated.get(key, set()) is None:
            stated[key] = None
        else:
            stated.setdefault(key, set()).add(_read(text))  # type: ignore[union-attr]
    return sorted({line for line in overrides if _decides(key_of(line)) and not _is_stated(line, stated)})


def is_given(overrides: Sequence[str], lines: Sequence[str]) -> bool:
    """Whether a run was given all of some overrides, and there are any."""
    given = {(key_of(line), _read(_value_of(line))) for line in overrides}
    return bool(lines) and all((key_of(line), _read(_value_of(line))) in given for line in lines)


def _list_stated(stage: StageConfig) -> Iterator[tuple[str, str]]:
    for line in (*stage.overrides, *stage.quick.overrides):
        yield key_of(line), _value_of(line)
    for grid in (stage.grid, stage.quick.grid):
        yield from ((key_of(key), yaml.safe_dump(value)) for key, values in grid.items() for value in values)


def _decides(key: str) -> bool:
    section = key.replace("/", ".").replace("@", ".").partition(".")[0]
    return section not in _OF_THE_STAGE and is_science(key) and is_science(section)


def _is_stated(line: str, stated: dict[str, set[str] | None]) -> bool:
    key = key_of(line)
    if key not in stated:
        return False
    allowed = stated[key]
    return allowed is None or _read(_value_of(line)) in allowed


def _value_of(line: str) -> str:
    return line.partition("=")[2]


def _read(text: str) -> str:
    """A value as a text that equal ones share, whatever their quotes and zeros."""
    try:
        value = yaml.safe_load(text)
        # YAML 1.1 takes 1e-3 for a text, Hydra for a number.
        value = float(value) if isinstance(value, str) else value
    except (yaml.YAMLError, ValueError):
        return canonical(text.strip().strip("'\""))
    return canonical(value)
