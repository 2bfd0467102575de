"""Steps from a budget: the formula by hand, what follows, what is refused and how it is mended, which run it is."""

import re

import pytest
import yaml

from llama_exp.config import budget
from llama_exp.config.check import CONF, check_arguments
from llama_exp.config.explain import explain
from llama_exp.config.identity import config_hash, continuation_hash, to_record
from llama_exp.errors import ConfigError
from llama_exp.run import plan

# 2 blocks, D = 64, F = 128, 4 heads of 16, of which 2 for keys and values, V = 512, rows of 128 tokens.
TINY = (
    *("model.num_layers=2", "model.hidden_dim=64", "model.intermediate_dim=128"),
    *("model.num_query_heads=4", "model.num_key_value_heads=2", "dataset.sequence_length=128"),
)
MATRICES = 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 128) + 512 * 64
PER_TOKEN = 6 * MATRICES + 12 * 2 * 64 * 128
TOKENS_PER_STEP = 8 * 128


def config_of(*words):
    return check_arguments(list(words)).config


def problems_of(*words):
    with pytest.raises(ConfigError) as error:
        check_arguments(list(words))
    return error.value.problems


def explain_length(*words):
    (point,) = explain(["trainer.max_steps"], words, {}).points
    return point.explanations[0]


def test_flops_buy_whole_steps_of_what_the_plan_counts():
    config = config_of(*TINY, "trainer.budget_flops=1e12")
    assert config.trainer.max_steps == int(1e12) // (PER_TOKEN * TOKENS_PER_STEP) == 1168
    planned = plan.make_plan(config)
    spent = planned.flops_per_token * planned.total_tokens
    assert spent <= 1e12 < spent + planned.flops_per_token * planned.tokens_per_step
    assert dict(plan.rows(planned))["budget"] == "9.994e+11 of 1e+12 FLOP (99.94%) in 1168 steps"


def test_adapters_make_a_step_cheaper_than_training_everything_and_dearer_than_without_their_products():
    adapters = 4 * 2 * (64 + 64 + 64 + 32)  # rank 4 at query and value
    cost = 4 * (MATRICES + adapters) + 2 * adapters + 12 * 2 * 64 * 128
    config = config_of(*TINY, "lora.rank=4", "trainer.budget_flops=1e12")
    assert config.trainer.max_steps == int(1e12) // (cost * TOKENS_PER_STEP)


def test_tokens_buy_whole_steps():
    words = ("trainer.budget_tokens=1e6", "trainer.batch_size=4", "trainer.accumulation_steps=3")
    assert config_of(*words).trainer.max_steps == 1_000_000 // (4 * 3 * 128) == 651
    assert config_of("trainer.budget_tokens=1024").trainer.max_steps == 1  # exactly one step


@pytest.mark.parametrize("part", ["schedule=wsd", "schedule=cosine"])
def test_shares_of_the_length_follow(part):
    config = config_of(*TINY, part, "trainer.budget_flops=1e12")
    assert config.schedule.warmup_steps == 58  # a twentieth of 1168
    assert getattr(config.schedule, "decay_steps", 233) == 233


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "trainer").glob("*.yaml")))
def test_every_choice_of_a_trainer_takes_a_budget(name):
    stated = config_of(f"trainer={name}").trainer.max_steps
    raw = yaml.safe_load((CONF / "trainer" / f"{name}.yaml").read_text())["max_steps"]
    assert raw == f"${{budget_steps:{stated}}}"
    config = config_of(f"trainer={name}", "trainer.budget_tokens=1e6")
    assert config.trainer.max_steps == 1_000_000 // (config.trainer.batch_size * 128)


def test_a_sweep_over_budgets_checks_every_job():
    line = ("-m", *TINY, "trainer.budget_flops=1e12,4e12")
    check_arguments(list(line))
    told = explain(["trainer.max_steps"], line, {})
    assert [point.explanations[0].value for point in told.points] == [1168, 4674]
    assert "less than one" in problems_of("-m", "trainer.budget_flops=1e12,1e6")[0].what


def test_explain_shows_the_formula_and_its_operands():
    told = explain_length(*TINY, "trainer.budget_flops=1e12")
    assert told.note.splitlines()[1] == (
        f"1168 = 1e+12 FLOP / ({PER_TOKEN:,} FLOP per token x {TOKENS_PER_STEP:,} tokens per step), rounded down"
    )
    values = {read.key: read.value for read in told.reads}
    assert values["model.hidden_dim"] == 64 and values["trainer.batch_size"] == 8 and values["lora.rank"] == 0
    plain = explain_length()
    assert "there is no budget" in plain.note and [read.value for read in plain.reads] == [None, None]


# --- what is refused, and that the fix works


def test_steps_beside_a_budget_are_refused_by_name_and_each_fix_works():
    line = (*TINY, "trainer.max_steps=100", "trainer.budget_flops=1e12")
    (problem,) = problems_of(*line)
    assert problem.where == "trainer.max_steps" and "trainer.budget_flops" in problem.what
    assert "max_steps=100" in problem.found and "buys 1168" in problem.found
    fixes = re.findall(r"trainer\.\w+=\w+", problem.action)
    assert fixes == ["trainer.budget_flops=null", "trainer.max_steps=1168"]
    assert config_of(*TINY, "trainer.max_steps=100", fixes[0]).trainer.max_steps == 100
    assert config_of(*TINY, fixes[1], "trainer.budget_flops=1e12").trainer.max_steps == 1168
    assert config_of(*TINY, "trainer.budget_flops=1e12").trainer.max_steps == 1168


def test_two_budgets_are_refused():
    for further in ((), ("trainer.max_steps=100",)):
        (problem,) = problems_of("trainer.budget_flops=1e12", "trainer.budget_tokens=1e6", *further)
        assert problem.where == "trainer.budget_flops" and "budget_tokens=1e+06" in problem.found
    assert config_of("trainer.budget_flops=1e12", "trainer.budget_tokens=null").trainer.max_steps == 48


@pytest.mark.parametrize("key", ["budget_flops", "budget_tokens"])
def test_a_budget_below_one_step_is_refused_with_the_smallest(key):
    (problem,) = problems_of(f"trainer.{key}=10")
    assert problem.where == f"trainer.{key}" and "less than one" in problem.what
    smallest = problem.action.removeprefix("give at least ")
    assert config_of(f"trainer.{key}={smallest}").trainer.max_steps == 1
    (problem,) = problems_of(f"trainer.{key}=1e60")
    largest = problem.action.removeprefix("give at most ")
    assert config_of(f"trainer.{key}={float(largest) * 0.999}", "schedule=constant").trainer.max_steps > 2**30


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "many", "true", "[1]", "${oc.env:NO_SUCH_VARIABLE}"])
def test_an_impossible_budget_is_told_once(value):
    (problem,) = problems_of(f"trainer.budget_flops={value}")
    assert problem.where == "trainer.budget_flops"


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (("trainer.batch_size=x",), "trainer.batch_size"),
        (("trainer.batch_size=-2",), "trainer.batch_size"),
        (("model.hidden_dim=0",), "model.hidden_dim"),
        (("model.num_query_heads=0",), "model.num_query_heads"),
        (("dataset.sequence_length=0",), "dataset.sequence_length"),
        (("lora.rank=4", "lora.targets=[nothing]"), "lora.targets"),
    ],
)
def test_what_a_step_costs_is_wrong_where_it_is_wrong(wrong, where):
    assert [problem.where for problem in problems_of("trainer.budget_flops=1e12", *wrong)] == [where]


def test_adapters_that_are_not_there_are_told_by_their_file(tmp_path):
    words = ("trainer.budget_flops=1e12", "lora.rank=4", f"lora.source={tmp_path / 'none'}")
    assert [problem.where for problem in problems_of(*words)] == [str(tmp_path / "none")]


def test_a_class_of_your_own_has_no_flops_but_tokens(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: keras.Sequential\nvocabulary_size: 512\n")
    own = ("--config-dir", str(tmp_path), "model=mine")
    (problem,) = [p for p in problems_of(*own, "trainer.budget_flops=1e12") if p.where == "trainer.budget_flops"]
    assert "trainer.budget_tokens" in problem.action


# --- which run it is


def test_the_same_steps_are_the_same_run_however_they_were_stated():
    stated = config_of(*TINY, "trainer.max_steps=1168")
    bought = config_of(*TINY, "trainer.budget_flops=1e12")
    assert config_hash(stated) == config_hash(bought)
    longer = config_of(*TINY, "trainer.budget_flops=4e12")
    assert config_hash(longer) != config_hash(bought)
    assert continuation_hash(longer) == continuation_hash(stated)


def test_a_saved_config_holds_both_and_is_told_how_to_become_longer(tmp_path):
    config = config_of(*TINY, "trainer.budget_flops=1e12")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_record(config)))
    saved = ("--from", str(tmp_path))
    assert config_hash(config_of(*saved)) == config_hash(config)
    (problem,) = problems_of(*saved, "trainer.budget_flops=4e12")
    assert problem.action.endswith("trainer.max_steps=4674")
    assert config_of(*saved, "trainer.budget_flops=4e12", "trainer.max_steps=4674").trainer.max_steps == 4674


def test_what_a_run_used_is_counted_in_whole_steps():
    bought = budget.find_budget(config_of(*TINY, "trainer.budget_flops=1e12"))
    cost = PER_TOKEN * TOKENS_PER_STEP
    assert bought.spent(10) == {"amount": 1e12, "unit": "FLOP", "steps": 10, "used": 10 * cost}
    assert budget.find_budget(config_of()) is None
