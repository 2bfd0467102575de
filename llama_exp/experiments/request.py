"""What somebody asks of an experiment, and where its runs lie."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llama_exp.config.run_home import home_of
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.redact import redact_arguments
from llama_exp.limits.protocol import Half

EXPERIMENTS = home_of("experiments")
BASES = EXPERIMENTS / "bases"
_LETTERS = 6  # of a digest of overrides
# What may be said of all runs without making it another experiment.
_HARMLESS = re.compile(r"[+~]*(runtime|logger|debug|hydra[./](launcher|help|verbose|job_logging))([.=@/].*)?")
_GIVEN = re.compile(r"[+~]*(experiment|sweep|resume|name|protocol(\..*)?|hydra\.(run|sweep|sweeper)(\..*)?)=.*")


@dataclass(frozen=True)
class Request:
    """What to run.

    name: of the experiment, a file in conf/experiment. is_quick: its quick variant. halves: whose stages. models: name
    -> source of a model that the user gives. extra: overrides of every run. config_dir: the user's own folder of
    choices. stage: only this one, and those that it needs; None: all.
    """

    name: str
    is_quick: bool = False
    halves: frozenset[Half] = frozenset({Half.first})
    models: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    config_dir: str | None = None
    stage: str | None = None

    @property
    def changes(self) -> list[str]:
        """The overrides that make it another experiment than the one of its name."""
        return sorted(line for line in self.extra if not _HARMLESS.fullmatch(line))

    @property
    def folder(self) -> Path:
        """Where its stages lie; with other values it is another experiment, which has a folder of its own."""
        name = f"{self.name}-quick" if self.is_quick else self.name
        if self.changes:
            digest = hashlib.sha256("\n".join(self.changes).encode("utf-8", "backslashreplace")).hexdigest()
            name = f"{name}-{digest[:_LETTERS]}"
        return EXPERIMENTS / name

    def check_extra(self) -> None:
        """Raises `ConfigError` for overrides that the experiment itself gives to its runs."""
        wrong = [line for line in self.extra if _GIVEN.fullmatch(line)]
        if wrong:
            what, action = "is set by `llama-exp experiment` itself", "leave it out"
            raise ConfigError(
                *(Problem(what, line.partition("=")[0], line, action) for line in redact_arguments(wrong))
            )
