"""Which single values are possible: the limits of every part, and those of keys that belong to none."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llama_exp.architecture import AS_STORED, FLOATS, MODES, OPTIONS, quantization_problems
from llama_exp.config.check.typed import MISSING, Origin, list_sections, show
from llama_exp.config.loggers import list_loggers
from llama_exp.config.schema import Config, LoggerConfig, MlflowLoggerConfig
from llama_exp.errors import Problem
from llama_exp.limits import (
    FILLED,
    Limit,
    Limits,
    allow_null,
    dataset,
    evaluation,
    logger,
    lora,
    model,
    objective,
    optimizer,
    protocol,
    runtime,
    schedule,
    tokenizer,
    trainer,
)

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
RUN = Limits(
    "",
    {
        "name": Limit(
            lambda value: bool(NAME.fullmatch(value)),
            "letters, digits, '_', '-' and '.', at most 100: it becomes a folder below outputs/",
        ),
        "seed": Limit(lambda value: 0 <= value < 2**32, "an integer from 0 to 4294967295"),
        "objective_metric": FILLED,
        "resume": FILLED,
        "branch_from": allow_null(FILLED),
    },
)
PRESET = Limits("preset", {"source": allow_null(FILLED)})
_NAMES = (FLOATS, AS_STORED, *MODES)
QUANTIZATION = Limits(
    "quantization",
    {
        "mode": Limit(lambda value: value in _NAMES, f"one of {', '.join(_NAMES)}"),
        **{name: allow_null(Limit(option.possible, option.words)) for name, option in OPTIONS.items()},
    },
    (quantization_problems,),
)
PARTS = (
    dataset,
    evaluation,
    logger,
    lora,
    model,
    objective,
    optimizer,
    protocol,
    runtime,
    schedule,
    tokenizer,
    trainer,
)
OF_LOGGERS = {LoggerConfig: logger.LIMITS, MlflowLoggerConfig: logger.MLFLOW}
LIMITS = {limits.section: limits for limits in (RUN, PRESET, QUANTIZATION, *(part.LIMITS for part in PARTS))}


def collect_sound_values(node: Any) -> dict[str, Any]:
    """Key -> value of a config or of one of its sections, without sections in it and values that are missing."""
    return {
        key: value
        for key, value in vars(node).items()
        if not dataclasses.is_dataclass(value) and not (isinstance(value, str) and value == MISSING)
    }


def find_impossible_values(config: Config, origin: Origin) -> Iterator[Problem]:
    """Every value of every part of ours outside its limit."""
    yield from _problems(RUN, collect_sound_values(config), origin)
    for name in list_sections():
        section = getattr(config, name)
        if dataclasses.is_dataclass(section):
            yield from _problems(LIMITS.get(name, Limits(name, {})), collect_sound_values(section), origin)
    for where, section in list_loggers(config.logger).items() if isinstance(config.logger, dict) else ():
        if type(section) in OF_LOGGERS:
            limits = dataclasses.replace(OF_LOGGERS[type(section)], section=where)
            yield from _problems(limits, collect_sound_values(section), origin)


def _problems(limits: Limits, values: Mapping[str, Any], origin: Origin) -> Iterator[Problem]:
    return limits.value_problems(values, lambda key, value: origin(limits.path_of(key), show(value)))
