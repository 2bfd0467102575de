"""The command line that `wandb agent` makes of a sweep's file, as wandb itself spells it."""

import pytest

from llama_exp.config.check import check_arguments

utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
CHOSEN = {
    "lora.rank": 16,
    "optimizer.learning_rate": 0.0003,
    "lora.targets": ["query", "value"],
    "lora.use_dora": True,
    "schedule": "linear",
    "trainer.max_steps": 50,
}


def spelled(form):
    """The words that an agent puts in the place of `${<form>}`."""
    command = {"args": {name: {"value": value} for name, value in CHOSEN.items()}}
    return utils.create_sweep_command_args(command)[form]


def test_arguments_without_hyphens_are_overrides():
    config = check_arguments(spelled("args_no_hyphens")).config
    assert (config.lora.rank, config.optimizer.learning_rate, config.trainer.max_steps) == (16, 0.0003, 50)
    assert (config.lora.targets, config.lora.use_dora) == (["query", "value"], True)
    assert config.schedule._target_ == "llama_exp.schedule.linear"
