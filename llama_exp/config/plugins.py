"""Our own plug-ins of Hydra, made known by name.

Hydra looks for plug-ins on the disk, and does not look into an installation that leads to a checkout
(`pip install -e`).
"""

from __future__ import annotations

from hydra.core.plugins import Plugins

from hydra_plugins.llama_exp_sweeps.processes import ProcessesLauncher
from hydra_plugins.llama_exp_sweeps.search import SearchSweeper
from hydra_plugins.llama_exp_sweeps.search_path import SweepsSearchPath


def register() -> None:
    """Makes launcher, sweeper and their YAML known to Hydra; harmless when called again."""
    for plugin in (ProcessesLauncher, SearchSweeper, SweepsSearchPath):
        Plugins.instance().register(plugin)
