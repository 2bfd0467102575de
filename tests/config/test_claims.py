"""Mistakes in claims are told before anything runs: all at once, each with what would be right."""

import dataclasses
import math

import pytest
import yaml

from llama_exp.config.check import CONF, check_arguments
from llama_exp.config.check.claims import find_claim_problems
from llama_exp.config.check.typed import Typing
from llama_exp.errors import ConfigError

NONE = yaml.safe_load((CONF / "protocol" / "none.yaml").read_text())

CLAIM = {
    "statement": "It falls.",
    "stages": ["ranks"],
    "estimator": "mean_difference",
    "arguments": {"y": "validation.loss", "of": {"lora.rank": 4}, "against": {"lora.rank": [16, 64]}},
    "expected": {"high": 0.0},
}
RATES = {"estimator": "best_rate_ratio"}


def arguments(**changes):
    return {"arguments": {**CLAIM["arguments"], **changes}}


@pytest.fixture(scope="module")
def config():
    return check_arguments(["logger=none"]).config


@pytest.fixture
def find_problems(config):
    def check(*claims):
        typing = Typing()
        section = typing.section("protocol", {**NONE, **make_section(*claims)}, [])
        assert not typing.problems
        found = find_claim_problems(dataclasses.replace(config, protocol=section))
        return {problem.where: str(problem) for problem in found}

    return check


def make_section(*claims):
    named = {f"claim_{number}": {**CLAIM, **claim} for number, claim in enumerate(claims)}
    return {"stages": {"ranks": {"grid": {"lora.rank": [4, 16]}}}, "claims": named}


def test_claims_that_are_right(find_problems):
    more = {"x": "lora.rank", "y": "mean grad_norm"}
    assert not find_problems(
        {},
        arguments(best_over="optimizer.learning_rate", best_by="last loss", pair_by=["trainer.max_steps"]),
        arguments(y="evaluation.docs.accuracy", confidence=0.9, best_by="evaluation.docs.regret:min"),
        {"estimator": "log_log_slope", "arguments": more, "expected": {"low": -1, "high": -0.2}},
        {"estimator": "best_rate_drift", "arguments": {**more, "neighbours": 2, "x": "parameters.all"}},
        {**RATES, **arguments(rate="optimizer.learning_rate")},
        {"estimator": "steps_saved", "arguments": {key: CLAIM["arguments"][key] for key in ("of", "against")}},
    )


@pytest.mark.parametrize(
    ("claim", "where", "told"),
    [
        ({"estimator": "mean_diference"}, "estimator", "did you mean mean_difference?"),
        ({"estimator": "log_log_slope", "arguments": {"x": "lora.rank"}}, "arguments.y", "set it to a quantity"),
        (arguments(yy="loss"), "arguments", "it takes: against, best_by, best_over"),
        (arguments(neighbours=1), "arguments", "is no argument of mean_difference"),
        ({"stages": ["rnaks"]}, "stages", "did you mean ranks?"),
        ({"stages": []}, "stages", "choose among ranks"),
        ({"expected": {}}, "expected", "is open on both sides"),
        ({"expected": {"low": 1.0, "high": -1.0}}, "expected", "write low=-1.0 high=1.0"),
        ({"expected": {"low": math.nan}}, "expected", "leave an open end out"),
        ({"expected": {"high": math.inf}}, "expected", "leave an open end out"),
        ({"published": math.nan}, "published", "give a number, or null"),
        ({"statement": " "}, "statement", "say in a sentence"),
        ({"filter": {"lora.rnak": 3}}, "filter", "did you mean lora.rank?"),
        ({"filter": {"lora.rank": []}}, "filter", "a list of several"),
        ({"filter": {"lora.rank": {"a": 1}}}, "filter", "a list of several"),
        (arguments(of={"ünbekannt": 3}), "arguments.of", "docs/reference/configuration.md"),
        (arguments(of=3), "arguments.of", "is no filter"),
        (arguments(against={}), "arguments.against", "set it to a filter"),
        (arguments(y="validation.los"), "arguments.y", "did you mean validation.loss?"),
        (arguments(y="mean grad_nrm"), "arguments.y", "did you mean mean grad_norm?"),
        (arguments(y="median loss"), "arguments.y", "is no quantity of a run"),
        (arguments(y="parameters.some"), "arguments.y", "parameters.all"),
        (arguments(y=3), "arguments.y", "is no quantity of a run"),
        (arguments(best_over="learning_rate"), "arguments.best_over", "did you mean optimizer.learning_rate?"),
        (arguments(best_over={"a": 1}), "arguments.best_over", "docs/reference/configuration.md"),
        (arguments(pair_by=[["seed"]]), "arguments.pair_by", "did you mean seed?"),
        (arguments(best_by="steps"), "arguments.best_by", "steps:min or steps:max"),
        (arguments(best_by=4), "arguments.best_by", "which of its values are good ones"),
        (arguments(confidence=95), "arguments.confidence", "such as 0.95"),
        (arguments(pair_by="seed"), "arguments.pair_by", "a list of config keys"),
        (arguments(pair_by=["sed"]), "arguments.pair_by", "did you mean seed?"),
        ({**RATES, **arguments(neighbours=0)}, "arguments.neighbours", "at least 1"),
        ({**RATES, **arguments(neighbours=True)}, "arguments.neighbours", "at least 1"),
        ({**RATES, **arguments(rate=None)}, "arguments.rate", "set it to a quantity"),
    ],
)
def test_one_mistake_is_told_with_its_repair(find_problems, claim, where, told):
    found = find_problems(claim)
    assert list(found) == [f"protocol.claims.claim_0.{where}"]
    (text,) = found.values()
    assert told in text
    assert "\n  found: " in text and "\n  fix:   " in text


def test_all_mistakes_of_all_claims_are_told_before_anything_runs(tmp_path):
    section = make_section({"estimator": "none", "expected": {}}, {"stages": ["x"], "filter": {"y": 1}})
    (tmp_path / "experiment").mkdir()
    text = yaml.safe_dump({"protocol": {**section}})
    (tmp_path / "experiment" / "tiny.yaml").write_text(f"# @package _global_\n{text}")
    with pytest.raises(ConfigError) as caught:
        check_arguments(["--config-dir", str(tmp_path), "experiment=tiny", "logger=none", "trainer.max_steps=0"])
    assert {problem.where for problem in caught.value.problems} == {
        "trainer.max_steps",
        "protocol.claims.claim_0.expected",
        "protocol.claims.claim_0.estimator",
        "protocol.claims.claim_1.stages",
        "protocol.claims.claim_1.filter",
    }


def test_names_are_possible_file_names(config):
    section = Typing().section("protocol", {**NONE, **make_section({}), "claims": {"a/b": CLAIM}}, [])
    (problem,) = find_claim_problems(dataclasses.replace(config, protocol=section))
    assert (problem.where, problem.found) == ("protocol.claims", "'a/b'")
