"""The sweeper `search`: `hydra/sweeper=search` in any application of Hydra's, with `hydra/launcher=processes`."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SearchSweeper(Sweeper):
    """Searches a space for the point with the best objective.

    Args:
        **keys: those of conf/hydra/sweeper/search.yaml, which the config that `setup` gets holds too.
    """

    def __init__(self, **keys: Any) -> None:
        self._keys = keys

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what Hydra gives."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the trials; `arguments` are the command line's overrides, among them the space."""
        from llama_exp.sweeps.search.run import search

        assert self.config is not None and self.hydra_context is not None, "Hydra has called `setup`"
        return search(self.config, self.hydra_context, self.task_function, arguments)
