"""What optimizers and their rates accept, on a command line."""

import pytest

from llama_exp.config.check import check_arguments
from llama_exp.config.identity import continuation_hash
from llama_exp.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "where", "mended"),
    [
        ("lora.learning_rate_ratio=16", "lora.learning_rate_ratio", "lora.learning_rate_ratio=16 lora.rank=8"),
        ("lora.learning_rate_ratio=16", "lora.learning_rate_ratio", "lora.learning_rate_ratio=1.0"),
        ("lora.rank=8 lora.learning_rate_ratio=0", "lora.learning_rate_ratio", "lora.rank=8"),
        ("optimizer=sgd optimizer.nesterov=true optimizer.momentum=0", "optimizer.nesterov", "optimizer=sgd"),
        ("optimizer=sgd optimizer.momentum=1", "optimizer.momentum", "optimizer=sgd optimizer.momentum=0"),
        ("optimizer=lion optimizer.beta_2=1", "optimizer.beta_2", "optimizer=lion optimizer.beta_2=0.98"),
        ("optimizer=lion optimizer.epsilon=1", "optimizer.epsilon", "optimizer=lion"),
        ("optimizer=adafactor optimizer.beta_2_decay=0.8", "optimizer.beta_2_decay", "optimizer=adafactor"),
        ("optimizer=adafactor optimizer.clip_threshold=0", "optimizer.clip_threshold", "optimizer=adafactor"),
        ("optimizer=muon optimizer.update_rms=-1", "optimizer.update_rms", "optimizer=muon optimizer.update_rms=0.3"),
        (
            "optimizer.independent_weight_decay=true optimizer.weight_decay=1",
            "optimizer.weight_decay",
            "optimizer.independent_weight_decay=true optimizer.weight_decay=1e-4",
        ),
    ],
)
def test_each_is_refused_and_the_fix_works(line, where, mended):
    with pytest.raises(ConfigError) as raised:
        check_arguments(line.split())
    (problem,) = raised.value.problems
    assert problem.where == where and problem.action
    assert check_arguments(mended.split()).config


def test_a_run_does_not_go_on_with_another_optimizer():
    names = ("adamw", "sgd", "lion", "adafactor", "muon")
    hashes = {continuation_hash(check_arguments([f"optimizer={name}"]).config) for name in names}
    assert len(hashes) == len(names)
