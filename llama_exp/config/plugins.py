"""Launchers and sweepers by the names of their classes, and our own plug-ins, made known to Hydra.

Hydra looks for plug-ins on the disk, and does not look into an installation that leads to a checkout
(`pip install -e`).
"""

from __future__ import annotations

from hydra.core.plugins import Plugins

from hydra_plugins.llama_exp_sweeps.processes import ProcessesLauncher
from hydra_plugins.llama_exp_sweeps.search import SearchSweeper
from hydra_plugins.llama_exp_sweeps.search_path import SweepsSearchPath

# What `_target_` says of Hydra's own and of ours.
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
PROCESSES_LAUNCHER = f"{ProcessesLauncher.__module__}.{ProcessesLauncher.__qualname__}"
SEARCH_SWEEPER = f"{SearchSweeper.__module__}.{SearchSweeper.__qualname__}"


def register() -> None:
    """Makes launcher, sweeper and their YAML known to Hydra; harmless when called again."""
    for plugin in (ProcessesLauncher, SearchSweeper, SweepsSearchPath):
        Plugins.instance().register(plugin)
