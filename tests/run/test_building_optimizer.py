"""The optimizer of a run: its rates of single variables, its peak, and what the plan says of its state."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from llama_exp.config.check import check_arguments
from llama_exp.config.identity import to_dict
from llama_exp.errors import ConfigError
from llama_exp.models import LlamaBackbone
from llama_exp.run import building
from llama_exp.run.building import build_optimizer, list_rate_factors
from llama_exp.run.plan_state import count_state_bytes

pytestmark = pytest.mark.neutral

SMALL = ("model.vocabulary_size=264", "model.num_layers=1", "model.num_query_heads=2", "model.num_key_value_heads=1")
SMALL += ("model.hidden_dim=8", "model.intermediate_dim=12", "model.tie_word_embeddings=false", "tokenizer=byte")
LORA = ("lora.rank=3", "lora.targets=[query,feedforward_output_dense]")
SGD = ("optimizer._target_=keras.optimizers.SGD", "~optimizer.independent_weight_decay")
SGD += ("~optimizer.beta_1", "~optimizer.beta_2", "~optimizer.epsilon")


def made(*arguments):
    """A config and a model with a backbone of that config."""
    config = check_arguments([*SMALL, *arguments]).config
    shape = {key: value for key, value in to_dict(config.model).items() if key != "_target_"}
    backbone = LlamaBackbone(**shape, dtype=config.precision.policy.value)
    lora = config.lora
    if lora.rank:
        backbone.enable_lora(lora.rank, targets=lora.targets, use_dora=lora.use_dora)
    return config, SimpleNamespace(backbone=backbone)


def test_lora_plus_is_about_b_alone():
    config, model = made(*LORA, "lora.use_dora=true", "lora.learning_rate_ratio=16")
    factors = list_rate_factors(config, model)
    assert len(factors) == 2 and set(factors.values()) == {16.0}
    assert all(path.endswith("/adapter/lora_b") for path in factors)
    assert build_optimizer(config, model).rate_factors == factors
    config, model = made(*LORA)
    assert list_rate_factors(config, model) == {} == build_optimizer(config, model).rate_factors


def test_factors_pass_the_scaling_of_a_float16_loss():
    config, model = made(*LORA, "lora.learning_rate_ratio=4", "precision=mixed_float16")
    optimizer = build_optimizer(config, model)
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    assert set(optimizer.inner_optimizer.rate_factors.values()) == {4.0}


def test_an_optimizer_with_one_rate_is_refused_where_it_would_lose_one(tmp_path, monkeypatch):
    config, model = made(*LORA, *SGD)
    assert isinstance(build_optimizer(config, model), keras.optimizers.SGD)
    with pytest.raises(ConfigError) as raised:
        made(*LORA, *SGD, "lora.learning_rate_ratio=4")
    (problem,) = raised.value.problems
    assert problem.where == "optimizer._target_" and "lora.learning_rate_ratio=4" in problem.found
    assert "multiply_rates(factors)" in problem.action and "optimizer=adamw" in problem.action
    late = made(*LORA, *SGD)[0], made(*LORA, "lora.learning_rate_ratio=4")[1]
    monkeypatch.setattr(building, "list_rate_factors", lambda config, model: {"a/lora_b": 4.0})  # of another part
    with pytest.raises(ConfigError, match="a/lora_b learns at 4 times the rate"):
        build_optimizer(*late)
    monkeypatch.undo()
    source = "import keras\n\n\nclass Mine(keras.optimizers.SGD):\n    def multiply_rates(self, factors):\n"
    (tmp_path / "rates_of_mine.py").write_text(source + "        self.factors = factors\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = ("trusted_modules=[rates_of_mine]", "optimizer._target_=rates_of_mine.Mine", *SGD[1:])
    config, model = made(*LORA, *own, "lora.learning_rate_ratio=4")
    assert set(build_optimizer(config, model).factors.values()) == {4.0}


def test_independent_decay_knows_the_peak():
    config, model = made("optimizer.independent_weight_decay=true", "optimizer.weight_decay=1e-4")
    assert build_optimizer(config, model).peak == config.optimizer.learning_rate


@pytest.mark.parametrize("adapters", [(), LORA, (*LORA, "lora.use_dora=true")], ids=["full", "lora", "dora"])
@pytest.mark.parametrize("name", ["adamw", "sgd", "sgd optimizer.momentum=0", "lion", "adafactor", "muon"])
def test_the_plan_counts_the_state_that_an_optimizer_has(name, adapters):
    config, model = made(*f"optimizer={name}".split(), *adapters)
    optimizer = build_optimizer(config, model)
    optimizer.build(model.backbone.trainable_variables)
    sizes = [int(np.prod(x.shape)) for x in optimizer.variables if not x.path.endswith("/iteration")]
    assert count_state_bytes(config, to_dict(config.model)) == 4 * sum(sizes)


def test_the_state_of_a_class_of_keras_is_not_known():
    config, _ = made(*SGD)
    assert count_state_bytes(config, to_dict(config.model)) is None
