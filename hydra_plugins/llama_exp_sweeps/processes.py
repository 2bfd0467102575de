"""The launcher `processes`: `hydra/launcher=processes` in any application of Hydra's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ProcessesConfig:
    """The keys of `hydra.launcher`, which conf/hydra/launcher/processes.yaml explains; checked by their reader."""

    _target_: str = "hydra_plugins.llama_exp_sweeps.processes.ProcessesLauncher"
    app: Any = None
    resume: Any = "auto"
    n_jobs: Any = None
    devices: Any = None
    start_delay_seconds: Any = 0
    job_timeout_seconds: Any = None
    memory_limit_gb: Any = None
    on_failed: Any = "retry"
    extend: Any = False
    stop_on_failure: Any = False


ConfigStore.instance().store(
    group="hydra/launcher", name="processes", node=ProcessesConfig, provider="llama_exp_sweeps"
)


class ProcessesLauncher(Launcher):
    """Runs each job in a process of its own, several at a time.

    Args:
        **keys: those of `ProcessesConfig`, which the config that `setup` gets holds too.
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
