"""The section `logger`: W&B's keys (or those of a class of the user's) at its top, further loggers below own names.

    logger=[wandb,csv]     {_target_: llama_exp.logger.WandbLogger, mode: ..., csv: {_target_: ...CsvLogger}}

Every other section describes one object; this one none, one or several.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from llama_exp.config.schema import SCHEMAS

SECTION = "logger"
TARGET = "_target_"


def split_loggers(section: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys at the top of the section, and name -> node of the loggers below them."""
    named = {name: node for name, node in section.items() if _is_logger(node)}
    return {key: value for key, value in section.items() if key not in named}, named


def list_loggers(section: Mapping[str, Any]) -> dict[str, Any]:
    """Config key -> section of every logger, each as if it stood alone.

    Args:
        section: `logger` of a typed config.
    """
    own, named = split_loggers(section)
    schema = SCHEMAS.get(str(own.get(TARGET)))
    first = {SECTION: schema(**own) if schema else own} if own else {}
    return first | {f"{SECTION}.{name}": node for name, node in named.items()}


def name_of(target: str) -> str:
    """The name that conf/logger/ gives a logger of ours: `csv` of `llama_exp.logger.CsvLogger`."""
    return target.rpartition(".")[2].removesuffix("Logger").lower()


def _is_logger(node: Any) -> bool:
    return dataclasses.is_dataclass(node) or (isinstance(node, dict) and TARGET in node)
