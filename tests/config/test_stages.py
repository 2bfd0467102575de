"""Stages of an experiment: every mistake is told with the file's key, before anything runs."""

import pytest

from llama_exp.config.check.stages import find_stage_problems
from llama_exp.config.schema.protocol import ProtocolConfig, QuickConfig, StageConfig
from llama_exp.limits.protocol import Half


def problems_of(**stages):
    protocol = ProtocolConfig(title="t", source=None, method=None, differences=[], stage=None, stages=stages, claims={})
    return [(problem.where, problem.what, problem.action) for problem in find_stage_problems(protocol)]


BASE = StageConfig(cached=True)
SOUND = {
    "base": BASE,
    "ranks": StageConfig(overrides=["preset.source={base}/model"], grid={"lora.rank": [4, 8], "seed": [0]}),
    "smollm2": StageConfig(half=Half.pretrained, overrides=["preset.source={smollm2}"], grid={"optimizer": ["adamw"]}),
    "more": StageConfig(grid={"lora.rank_pattern.query": [4], "+optimizer.momentum": [0.9], "dataset.files": [["a"]]}),
}


def test_sound_stages_have_no_problem():
    assert problems_of(**SOUND) == []


@pytest.mark.parametrize(
    ("stage", "where", "words"),
    [
        (StageConfig(overrides=["preset.source={bsae}/model"]), "overrides", ["{bsae} is neither", "mean {base}?"]),
        (StageConfig(grid={"preset.source": ["{smolm2}"]}), "grid.preset.source", ["mean {smollm2}?"]),
        (StageConfig(overrides=["preset.source={smollm2}"]), "overrides", ["in the half without one", "pretrained"]),
        (StageConfig(overrides=["preset.source={later}/x"]), "overrides", ["stages run in their order", "move later"]),
        (StageConfig(overrides=["preset.source={stage}/x"]), "overrides", ["not before this one"]),
        (StageConfig(overrides=["a={big}"]), "overrides", ["a stage of the first half cannot need"]),
        (StageConfig(grid={"lora.rnk": [1]}), "grid.lora.rnk", ["no such key", "did you mean lora.rank?"]),
        (StageConfig(quick=QuickConfig(grid={"sede": [1]})), "quick.grid.sede", ["no such key", "seed"]),
        (StageConfig(grid={"seed": []}), "grid.seed", ["has no values"]),
        (StageConfig(grid={"hydra.launcher.n_jobs": [1]}), "grid.hydra.launcher.n_jobs", ["cannot differ"]),
        (StageConfig(grid={"seed": [1]}, cached=True), "grid", ["is one run, and has no grid"]),
        (StageConfig(overrides=["seed"]), "overrides", ["is no override"]),
        (StageConfig(overrides=["resume=none"]), "overrides", ["by `llama-exp experiment` itself"]),
        (StageConfig(overrides=["hydra.sweep.dir=x"]), "overrides", ["by `llama-exp experiment` itself"]),
        (StageConfig(overrides=["experiment=other"]), "overrides", ["belong to the experiment", "cached: true"]),
        (StageConfig(overrides=["seed=1"], grid={"seed": [1]}), "overrides", ["is given more than once"]),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_mends_it(stage, where, words):
    found = problems_of(base=BASE, big=StageConfig(half=Half.pretrained), stage=stage, later=StageConfig())
    assert len(found) == 1
    assert found[0][0] == f"protocol.stages.stage.{where}"
    assert all(word in " ".join(found[0]) for word in words), found


def test_all_mistakes_are_told_at_once():
    wrong = StageConfig(overrides=["resume=auto", "a={b}"], grid={"x.y": [1], "seed": []})
    assert len(problems_of(**{"two words": StageConfig(), "stage": wrong})) == 5


def test_quick_may_replace_what_the_stage_states():
    quick = QuickConfig(overrides=["trainer.max_steps=2"], grid={"seed": [0]})
    assert problems_of(a=StageConfig(overrides=["trainer.max_steps=9"], grid={"seed": [0, 1]}, quick=quick)) == []


def test_a_run_belongs_to_a_stage_that_there_is():
    protocol = ProtocolConfig(
        title="t", source=None, method=None, differences=[], stage="rank", stages={"ranks": BASE}, claims={}
    )
    (problem,) = find_stage_problems(protocol)
    assert (problem.where, problem.found) == ("protocol.stage", "rank") and "ranks" in problem.action
