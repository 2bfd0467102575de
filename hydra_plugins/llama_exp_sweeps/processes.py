"""The launcher `processes`: `hydra/launcher=processes` in any application of Hydra's."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ProcessesLauncher(Launcher):
    """Runs each job in a process of its own, several at a time.

    Args:
        **keys: those of conf/hydra/launcher/processes.yaml, which the config that `setup` gets holds too.
    """

    def __init__(self, **keys: Any) -> None:
        self._keys = keys

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what Hydra gives."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs; returns what each gave, in their order."""
        from llama_exp.sweeps.launch import launch

        return launch(self.config, self.hydra_context, self.task_function, job_overrides, initial_job_idx)
