"""What a launcher may ask the application whose jobs it runs; `PlainApp` answers for one that says nothing."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf

from llama_exp.sweeps.jobs import Glimpse, Needs, Outcome


class App(Protocol):
    """Questions about jobs that only their application can answer."""

    def identify(self, cfg: DictConfig) -> tuple[str, dict[str, Any]]:
        """Which job it is, as a hash, and its resolved config without `hydra`, flat (`lora.rank`), secrets masked."""

    def find_needs(self, cfg: DictConfig, cores: int) -> Needs:
        """What the job needs; `cores` are its share of the machine's."""

    def prepare(self) -> None:
        """Imports in a fork server, whose environment is set, what jobs need, and initialises nothing of it."""

    def look(self, folder: Path) -> Glimpse:
        """How far the job in a folder is; cheap, and never raises."""

    def find_outcome(self, folder: Path) -> Outcome | None:
        """How the last attempt in the folder ended, by the folder's own record; None: it does not say."""


class PlainApp:
    """An application that says nothing of its jobs."""

    def identify(self, cfg: DictConfig) -> tuple[str, dict[str, Any]]:
        """By all values; one that cannot be resolved yet counts as it is written."""
        from llama_exp.config.identity import flatten

        plain: Any = OmegaConf.to_container(cfg, resolve=False)
        plain.pop("hydra", None)
        text = json.dumps(plain, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest(), flatten(plain)

    def find_needs(self, cfg: DictConfig, cores: int) -> Needs:
        """The threads of OpenMP, which most numerical libraries take."""
        return Needs({"OMP_NUM_THREADS": str(cores)})

    def prepare(self) -> None:
        """What the application's script imported is there already: a server is a fork of its process."""

    def look(self, folder: Path) -> Glimpse:
        """Nothing is known of it."""
        return Glimpse()

    def find_outcome(self, folder: Path) -> Outcome | None:
        """Its folder does not say."""
        return None


def load_app(name: str | None) -> App:
    """The application's answers: an object by its dotted name, or `PlainApp` for None.

    Raises:
        ImportError, AttributeError: there is no such object.
    """
    if name is None:
        return PlainApp()
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)()
