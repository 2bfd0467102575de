"""What is said of a run's parts before anything is computed."""

import logging

from llama_exp.run.agreement import tell_nothing_to_adapt


def test_adapters_on_random_weights_are_told_with_the_remedy(caplog):
    caplog.set_level(logging.WARNING, "llama_exp")
    tell_nothing_to_adapt(8)
    assert "lora.rank=8 on random weights" in caplog.text and "will write nonsense" in caplog.text
    assert "preset.source=outputs/default/latest/model" in caplog.text
