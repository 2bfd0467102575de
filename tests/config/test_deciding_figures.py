"""Figures that decide something are checked with the command line, and fit together."""

import pytest

from llama_exp.config.check import check_arguments
from llama_exp.config.identity import config_hash, continuation_hash
from llama_exp.errors import ConfigError

SET = ("+dataset@evaluation.sets.docs=python_docs",)
SEARCH = ("-m", "hydra/sweeper=search", "lora.rank=4,8")
WRONG = {
    "no such figure": (["objective_metric=validation.los"], "objective_metric", "validation.loss"),
    "no such evaluation": (["objective_metric=evaluation.docs.loss"], "objective_metric", "evaluation.sets"),
    "not of a set": ([*SET, "trainer.keep_best=evaluation.docs.accuracy"], "trainer.keep_best", "evaluation.docs.loss"),
    "only known at the end": (["trainer.stop_early=train_loss"], "trainer.stop_early", "validation.loss"),
    "without a direction": (["trainer.keep_best=evaluation.docs.regret"], "trainer.keep_best", ":min"),
    "the best of nothing": (["trainer.export=best"], "trainer.export", "trainer.keep_best=validation.loss"),
    "no patience": (["trainer.patience=0"], "trainer.patience", "at least 1"),
    "a delta below 0": (["trainer.min_delta=-1"], "trainer.min_delta", "at least 0"),
    "a loss of 0": (["trainer.overfit_below=0"], "trainer.overfit_below", "above 0"),
    "half a step": (["trainer.profile_steps=0.5"], "trainer.profile_steps", "integer"),
    "kept for ever": (["trainer.keep_optimizer=never"], "trainer.keep_optimizer", "until_finished"),
    "swept over": (["-m", "objective_metric=validation.loss,train_loss"], "objective_metric", "one value"),
    "the wrong way": (
        [*SEARCH, "hydra.sweeper.direction=maximize"],
        "hydra.sweeper.direction",
        "hydra.sweeper.direction=minimize",
    ),
    "the wrong way, named": (
        [*SEARCH, "hydra.sweeper.objectives=[tokens_per_second]"],
        "hydra.sweeper.direction",
        "hydra.sweeper.direction=maximize",
    ),
    "two directions": (
        [*SEARCH, "hydra.sweeper.direction=[minimize,maximize]"],
        "hydra.sweeper.direction",
        "hydra.sweeper.objectives",
    ),
    "unknown, named": (
        [*SEARCH, "hydra.sweeper.objectives=[validation.lost]"],
        "hydra.sweeper.objectives",
        "validation.loss",
    ),
    "pruned by the end": (
        [*SEARCH, "objective_metric=train_loss", "hydra.sweeper.pruner=median"],
        "hydra.sweeper.pruner",
        "hydra.sweeper.pruner=none",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_named(name):
    arguments, where, action = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        check_arguments(arguments)
    (problem,) = caught.value.problems
    assert problem.where == where and action in problem.action


@pytest.mark.parametrize(
    "arguments",
    [
        ["objective_metric=tokens_per_second"],
        [*SET, "objective_metric=evaluation.docs.bits_per_byte", "trainer.keep_best=evaluation.docs.loss"],
        [*SEARCH, "objective_metric=tokens_per_second", "hydra.sweeper.direction=maximize"],
        [
            *SEARCH,
            "hydra.sweeper.objectives=[validation.best,peak_memory_bytes]",
            "hydra.sweeper.direction=[minimize,minimize]",
        ],
        ["trainer=overfit_batch"],
        ["trainer=smoke"],
    ],
)
def test_what_fits_together_is_accepted(arguments):
    check_arguments(arguments)


def test_what_decides_is_science_and_what_is_kept_is_not():
    plain = check_arguments([]).config
    for line in ("trainer.keep_optimizer=until_finished", "trainer.profile_steps=3", "objective_metric=train_loss"):
        other = check_arguments([line]).config
        assert config_hash(other) == config_hash(plain) and continuation_hash(other) == continuation_hash(plain)
    stopping = check_arguments(["trainer.stop_early=validation.loss"]).config
    assert config_hash(stopping) != config_hash(plain) and continuation_hash(stopping) == continuation_hash(plain)
    for line in ("trainer.patience=7", "trainer.min_delta=0.5"):
        other = check_arguments(["trainer.stop_early=validation.loss", line]).config
        assert config_hash(other) != config_hash(stopping) and continuation_hash(other) == continuation_hash(plain)
    for line in ("trainer.keep_best=validation.loss", "trainer.overfit_below=0.1"):
        assert continuation_hash(check_arguments([line]).config) != continuation_hash(plain)
