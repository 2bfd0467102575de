"""The sweeper `search`: `hydra/sweeper=search` in any application of Hydra's, with `hydra/launcher=processes`."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class SearchConfig:
    """The keys of `hydra.sweeper`, which conf/hydra/sweeper/search.yaml explains; checked by their reader."""

    _target_: str = "hydra_plugins.llama_exp_sweeps.search.SearchSweeper"
    n_trials: Any = 20
    direction: Any = "minimize"
    objectives: Any = None
    sampler: Any = "tpe"
    seed: Any = 0
    n_startup_trials: Any = 10
    pruner: Any = "none"
    prune_after_trials: Any = 5
    prune_after_rows: Any = 2
    reduction_factor: Any = 3
    params: Any = None


ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchConfig, provider="llama_exp_sweeps")


class SearchSweeper(Sweeper):
    """Searches a space for the point with the best objective.

    Args:
        **keys: those of `SearchConfig`, which the config that `setup` gets holds too.
    """

    def __init__(self, **keys: Any) -> None:
        self._keys = keys

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what Hydra gives."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the trials; `arguments` are the command line's overrides, among them the space."""
        from llama_exp.sweeps.search.run import search

        return search(self.config, self.hydra_context, self.task_function, arguments)
