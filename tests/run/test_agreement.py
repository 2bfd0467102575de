"""What the parts of a run are asked and told before anything is computed."""

import logging
from types import SimpleNamespace

import pytest

from llama_exp.config.check import check_arguments
from llama_exp.errors import ConfigError
from llama_exp.limits.model import find_overrun
from llama_exp.run.agreement import require_prompts, tell_nothing_to_adapt, tell_overrun, tell_strong_decay


def test_what_is_longer_than_the_model_was_made_for():
    assert find_overrun(4096, 4096) is None and find_overrun(9999, None) is None
    told = find_overrun(4097, 4096)
    assert "4097 tokens" in told and "made for 4096" in told and "rope_position_scaling_factor=2" in told


@pytest.mark.parametrize(
    ("length", "scaling", "is_told"), [(4097, 1.0, True), (4096, 1.0, False), (8192, 2.0, False), (8193, 2.0, True)]
)
def test_rows_of_a_preset(caplog, length, scaling, is_told):
    """The files of a built-in preset do not say what it was made for; the table does."""
    config = check_arguments(["model=llama2_7b", f"dataset.sequence_length={length}"]).config
    with caplog.at_level(logging.WARNING):
        tell_overrun(config, None, scaling)
        tell_overrun(check_arguments([]).config, None, 1.0)  # random weights were made for nothing
    assert len(caplog.records) == is_told
    assert not is_told or f"dataset.sequence_length={length}: " in caplog.text


def test_the_files_of_a_preset_say_more_than_the_table(caplog):
    config = check_arguments(["model=llama2_7b", "dataset.sequence_length=4096"]).config
    with caplog.at_level(logging.WARNING):
        tell_overrun(config, 1024, 1.0)
    assert "made for 1024" in caplog.text


def test_prompts_that_give_no_token():
    bytes_only = SimpleNamespace(begin_id=None, encode=lambda text: list(text.encode()))
    require_prompts(["a", " "], bytes_only)
    require_prompts([""], SimpleNamespace(begin_id=1, encode=bytes_only.encode))
    with pytest.raises(ConfigError, match="trainer.sample_prompts"):
        require_prompts(["a", ""], bytes_only)


def test_adapters_on_random_weights_are_told_with_the_remedy(caplog):
    caplog.set_level(logging.WARNING, "llama_exp")
    tell_nothing_to_adapt(8)
    assert "lora.rank=8 on random weights" in caplog.text and "will write nonsense" in caplog.text
    assert "preset.source=outputs/default/latest/model" in caplog.text


def test_decay_of_a_coupled_run_is_told_with_what_it_was(caplog):
    caplog.set_level(logging.WARNING, "llama_exp")
    coupled = {"learning_rate": 1.5e-3, "weight_decay": 0.1, "independent_weight_decay": False}
    tell_strong_decay(coupled)
    tell_strong_decay(coupled | {"independent_weight_decay": True, "weight_decay": 1.5e-4})
    assert not caplog.text
    tell_strong_decay(coupled | {"independent_weight_decay": True})
    assert "takes 10 % of every matrix away" in caplog.text and "optimizer.weight_decay=0.00015" in caplog.text
