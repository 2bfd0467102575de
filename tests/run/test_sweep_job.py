"""A job of a sweep as its run sees it."""

import pytest
from omegaconf import OmegaConf

from llama_exp.config.plugins import BASIC_LAUNCHER
from llama_exp.run import sweep_job


@pytest.mark.parametrize(
    ("target", "is_a_job", "shares"),
    [
        ("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", False, True),
        ("hydra_plugins.llama_exp_sweeps.processes.ProcessesLauncher", True, False),
        (BASIC_LAUNCHER, False, False),
    ],
)
def test_whose_lines_need_a_name(monkeypatch, target, is_a_job, shares):
    monkeypatch.setattr(sweep_job, "is_a_job", lambda: is_a_job)
    assert sweep_job.shares_terminal(OmegaConf.create({"launcher": {"_target_": target}})) == shares
