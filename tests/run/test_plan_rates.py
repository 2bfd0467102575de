"""Rates that runs leave, and the times that plans make of them."""

import dataclasses
import json

import pytest

from llama_exp.config.check import check_arguments
from llama_exp.run import plan_rates
from llama_exp.run.machine import cpu_name
from llama_exp.run.plan import make_plan


@pytest.fixture
def planned(tmp_path):
    def make(*arguments):
        config = check_arguments([f"runtime.cache_dir={tmp_path}", *arguments]).config
        return config, make_plan(config)

    return make


def test_the_rate_of_the_same_run(planned):
    assert plan_rates.estimate(*planned()) is None
    config, plan = planned()
    plan_rates.remember(config, plan, {"tokens_per_second": 1024.0}, cpu_name())
    found = plan_rates.estimate(config, plan)
    assert found.tokens_per_second == 1024.0 and found.differing == () and found.seconds == 1200
    # Length, seed and learning rate do not change the rate.
    longer = plan_rates.estimate(*planned("trainer.max_steps=2400", "seed=3", "optimizer.learning_rate=1e-4"))
    assert longer.differing == () and longer.seconds == 2400


def test_the_nearest_rate_is_scaled_by_arithmetic(planned):
    config, plan = planned("trainer.batch_size=4", "model.num_layers=2")
    plan_rates.remember(config, plan, {"tokens_per_second": 500.0}, cpu_name())
    near, near_plan = planned("model.num_layers=2")
    plan_rates.remember(near, near_plan, {"tokens_per_second": 900.0}, cpu_name())
    wanted, wanted_plan = planned()
    found = plan_rates.estimate(wanted, wanted_plan)
    assert found.differing == ("model",)
    assert found.tokens_per_second == pytest.approx(900 * near_plan.flops_per_token / wanted_plan.flops_per_token)
    again, again_plan = planned("model.num_layers=2", "trainer.remat=block")
    repeated = plan_rates.estimate(again, again_plan)
    assert repeated.differing == ("trainer.remat",) and repeated.tokens_per_second < 900


def test_other_machines_and_backends_say_nothing(planned):
    config, plan = planned()
    plan_rates.remember(config, plan, {"tokens_per_second": 100.0}, "another processor")
    plan_rates.remember(*planned("runtime.backend=jax"), {"tokens_per_second": 100.0}, cpu_name())
    assert plan_rates.estimate(config, plan) is None
    assert plan_rates.estimate(config, plan, ("another processor",)).tokens_per_second == 100


def test_what_is_not_recorded(planned, tmp_path):
    config, plan = planned()
    plan_rates.remember(config, None, {"tokens_per_second": 100.0}, cpu_name())
    plan_rates.remember(config, plan, {"tokens_per_second": None}, cpu_name())
    assert not (tmp_path / "rates").exists()
    (tmp_path / "rates").write_text("a file in the way")
    plan_rates.remember(config, plan, {"tokens_per_second": 100.0}, cpu_name())  # the run is done, and whole without it
    assert plan_rates.estimate(config, plan) is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"setting": 3}', '{"setting": {}, "work_per_token": 0, "tokens_per_second": 1}', "\x00\xff"],
)
def test_damaged_records_are_as_good_as_none(planned, tmp_path, content):
    (tmp_path / "rates").mkdir()
    (tmp_path / "rates" / "x.json").write_text(content)
    assert plan_rates.estimate(*planned()) is None


def test_a_newer_rate_replaces_the_older_one(planned, tmp_path):
    config, plan = planned()
    for rate in (100.0, 200.0):
        plan_rates.remember(dataclasses.replace(config, seed=int(rate)), plan, {"tokens_per_second": rate}, cpu_name())
    (file,) = (tmp_path / "rates").iterdir()
    assert json.loads(file.read_text())["tokens_per_second"] == 200
