"""Where Hydra finds the plug-ins' YAML."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class SweepsSearchPath(SearchPathPlugin):
    """Puts it behind the application's own, which may thus say the same choice with other values.

    Hydra's store of dataclasses, where plug-ins usually put their keys, warns about a YAML file of the same name.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Adds one place."""
        search_path.append(provider="llama_exp_sweeps", path="pkg://hydra_plugins.llama_exp_sweeps.conf")
