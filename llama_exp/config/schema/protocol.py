"""What an experiment states before it runs: its stages, and what it expects of them. See `llama_exp.config.schema`.

Stages, claims and the source stand below names, or not at all: their keys have defaults here, and in no file of conf/.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from llama_exp.limits.protocol import Half


@dataclass
class SourceConfig:
    """The publication that an experiment repeats in small."""

    title: str = MISSING
    authors: str = MISSING
    year: int = MISSING
    url: str = MISSING


@dataclass
class QuickConfig:
    """What a stage does otherwise in the quick variant."""

    overrides: list[str] = field(default_factory=list)  # behind those of the stage
    grid: dict[str, list[Any]] = field(default_factory=dict)  # config key -> values, in the place of the stage's own


@dataclass
class StageConfig:
    """A sweep of the experiment, or one run that several experiments share."""

    half: Half = Half.first
    overrides: list[str] = field(default_factory=list)  # of every run; {name}: folder of an earlier stage
    grid: dict[str, list[Any]] = field(default_factory=dict)  # config key -> values; every combination is a run
    quick: QuickConfig = field(default_factory=QuickConfig)
    cached: bool = False  # one run, kept by its config hash for all experiments


@dataclass
class ExpectedConfig:
    """The range in which a claim expects its quantity; null: open."""

    low: float | None = None
    high: float | None = None


@dataclass
class ClaimConfig:
    """One quantity, how it is computed from runs, and where it is expected."""

    statement: str = MISSING  # one sentence
    stages: list[str] = MISSING  # whose runs count
    estimator: str = MISSING  # name of a function of llama_exp.protocol.estimators
    expected: ExpectedConfig = field(default_factory=ExpectedConfig)
    where: str | None = None  # section, figure or table of the source
    published: float | None = None  # the source's own value; null: it gives none
    filter: dict[str, Any] = field(default_factory=dict)  # config key -> value, or list of values, of runs that count
    arguments: dict[str, Any] = field(default_factory=dict)  # of the estimator


@dataclass
class ProtocolConfig:
    """An experiment of several runs."""

    title: str | None = MISSING  # null: the run belongs to no experiment
    source: SourceConfig | None = MISSING  # what it repeats; null: nothing published
    method: str | None = MISSING  # what is done, for a reader
    differences: list[str] = MISSING  # from the source, each a sentence
    stage: str | None = MISSING  # that the run belongs to
    stages: dict[str, StageConfig] = MISSING  # name -> stage, in the order in which they run
    claims: dict[str, ClaimConfig] = MISSING  # name -> claim
