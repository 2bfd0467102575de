"""The command line of a stage, from what its YAML states."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama_exp.config.check.stages import key_of
from llama_exp.config.quoting import plain_or_quoted
from llama_exp.config.schema.protocol import StageConfig
from llama_exp.limits.protocol import fill_places

# Values that are more than a text: Hydra's lists, mappings, quotes, functions and interpolations.
_STRUCTURED = re.compile(r"[\[{'\"]|\$\{|\w+\(|.*,")


def stage_lines(stage: StageConfig, places: Mapping[str, str], is_quick: bool) -> list[str]:
    """Overrides and grid of a stage; what the quick variant states takes the place of the stage's own.

    Args:
        stage: as its YAML has it.
        places: name -> what `{name}` stands for.
        is_quick: whether it is the quick variant.
    """
    parts = [*(fill_line(line, places) for line in stage.overrides), *_grid_lines(stage.grid, places)]
    if is_quick:
        parts += [*(fill_line(line, places) for line in stage.quick.overrides), *_grid_lines(stage.quick.grid, places)]
    return last_wins(parts)


def last_wins(lines: Iterable[str]) -> list[str]:
    """The lines without those that a later one of the same key replaces; each stays at the first one's place."""
    by_key: dict[str, str] = {}
    for line in lines:
        by_key[key_of(line)] = line
    return list(by_key.values())


def fill_line(line: str, places: Mapping[str, str]) -> str:
    """An override with its places filled in, quoted where the text that results needs it."""
    key, has_value, value = line.partition("=")
    filled = fill_places(value, places)
    if filled == value:
        return line
    is_structured = _STRUCTURED.match(fill_places(value, dict.fromkeys(places, "x")).strip())
    return f"{key}{has_value}{filled if is_structured else plain_or_quoted(filled)}"


def write_value(value: Any) -> str:
    """A value of YAML in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return plain_or_quoted(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{write_value(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(write_value, value)) + "]"
    return str(value)


def _grid_lines(grid: Mapping[str, Sequence[Any]], places: Mapping[str, str]) -> list[str]:
    filled = {key: [_filled(value, places) for value in values] for key, values in grid.items()}
    return [f"{key}={','.join(map(write_value, values))}" for key, values in filled.items()]


def _filled(value: Any, places: Mapping[str, str]) -> Any:
    return fill_places(value, places) if isinstance(value, str) else value
