"""Verdicts on made-up runs: what the interval says, what is missing, what was edited, what is quick."""

import dataclasses
import math
import random
from collections import Counter

import pytest
import scipy.stats
from made_claims import CLAIMS, RATES, draw_losses, make_experiment, make_protocol

from llama_exp.config.schema.protocol import QuickConfig, StageConfig
from llama_exp.errors import InputError
from llama_exp.protocol import Drawing, Obtained, Verdict, judge, read_protocol
from llama_exp.protocol.overrides import list_unstated
from llama_exp.protocol.verdicts import decide
from llama_exp.results import load_runs

ALL = ("ratio", "falls", "better")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return load_runs([make_experiment(tmp_path_factory.mktemp("experiments"))])


def judge_by_name(runs):
    return {result.name: result for result in judge(runs)}


def judge_made(*arguments, **keywords):
    return judge_by_name(load_runs([make_experiment(*arguments, **keywords)]))


def replace_run(runs, number, **changes):
    return [*runs[:number], dataclasses.replace(runs[number], **changes), *runs[number + 1 :]]


def end_otherwise(runs, number, **summary):
    """The runs, one of which has another summary."""
    return replace_run(runs, number, summary={**runs[number].summary, **summary})


def state_otherwise(run, start=None, **changes):
    """A run whose config states something else."""
    protocol = {**run.config["protocol"], **changes}
    starts = run.record["starts"] if start is None else [{"time": start}]
    record = {**run.record, "starts": starts}
    return dataclasses.replace(run, config={**run.config, "protocol": protocol}, record=record)


# --- the rule


@pytest.mark.parametrize(
    ("interval", "expected", "verdict"),
    [
        ((1.0, 2.0), (None, 2.0), "confirmed"),
        ((1.0, 2.0), (1.0, 2.0), "confirmed"),
        ((1.0, 2.0), (1.5, None), "not seen"),
        ((1.0, 2.0), (2.0, None), "not seen"),
        ((1.0, 2.0), (2.1, None), "contradicted"),
        ((1.0, 2.0), (None, 0.9), "contradicted"),
        ((1.0, 4.0), (2.0, 3.0), "not seen"),
        ((-math.inf, math.inf), (None, 3.0), "not seen"),
        ((5.0, math.inf), (None, 3.0), "contradicted"),
        ((5.0, math.inf), (3.0, None), "confirmed"),
    ],
)
def test_the_interval_decides(interval, expected, verdict):
    obtained = Obtained(interval[0], *interval, "", "", Drawing("", "", ()))
    assert decide(obtained, *expected)[0].value == verdict


# --- what runs say


def test_claims_are_judged_on_the_runs_of_their_stage(runs):
    found = judge_by_name(runs)
    assert tuple(found) == ALL
    assert [result.verdict.value for result in found.values()] == ["confirmed", "contradicted", "confirmed"]
    assert found["ratio"].obtained.value == pytest.approx(1.0, rel=0.1)
    assert len(found["ratio"].runs) == 16  # ranks 4 and 64
    assert found["better"].notes == (
        "of: best at optimizer.learning_rate=0.001.",
        "against: best at optimizer.learning_rate=0.001.",
    )
    losses = draw_losses()
    pairs = [[losses[rank, 1e-3, seed] for seed in range(2)] for rank in (64, 4)]
    interval = scipy.stats.ttest_rel(*pairs).confidence_interval(0.95)
    obtained = found["better"].obtained
    assert (obtained.low, obtained.high) == pytest.approx((interval.low, interval.high))


def test_filters_take_values_and_lists_of_values(runs):
    claim = {**CLAIMS["falls"], "arguments": {"x": "lora.rank", "y": "validation.loss"}}
    claims = {
        "one": {**claim, "filter": {"optimizer.learning_rate": 1e-3}},
        "two": {**claim, "filter": {"optimizer.learning_rate": [1e-3, 1e-2], "lora.targets": ["all-linear"]}},
        "none": {**claim, "filter": {"lora.dropout": 0.5}},
    }
    found = judge_by_name([state_otherwise(run, claims=claims) for run in runs])
    assert [len(result.runs) for result in found.values()] == [6, 12, 0]
    assert found["none"].reason == "no run has the values that its filter asks for."


# --- what is missing


def test_a_job_that_has_not_begun_gives_no_verdict(tmp_path):
    found = judge_made(tmp_path, {**draw_losses(), (64, 1e-3, 1): None})
    assert {result.verdict for result in found.values()} == {Verdict.not_seen}
    for result in found.values():
        assert result.reason.startswith("1 run is missing: ")
        assert "lora.rank=64 optimizer.learning_rate=0.001 seed=1 (not begun)" in result.reason


def test_choosing_runs_does_not_decide(runs):
    """A report on some jobs of a sweep says which are left out, instead of judging by the others."""
    found = judge_by_name([run for run in runs if run.config["seed"] == 0])
    assert all("not among these runs" in result.reason for result in found.values())


@pytest.mark.parametrize(
    ("summary", "told"),
    [
        ({"status": "failed", "exit_code": 4, "reason": "disk full"}, "(failed)"),
        ({"status": "preempted", "exit_code": 75}, "(preempted)"),
        ({"validation": {}}, "(has no validation.loss)"),
    ],
)
def test_a_run_without_its_figure_gives_no_verdict(runs, summary, told):
    found = judge_by_name(end_otherwise(runs, 0, **summary))
    assert all(told in result.reason and result.obtained is None for result in found.values())
    assert len(found["ratio"].missing) == 1


def test_a_killed_run_gives_no_verdict(runs):
    assert "(running)" in judge_by_name(replace_run(runs, 0, summary={}))["ratio"].reason


@pytest.mark.parametrize(
    "summary", [{"validation": {"loss": "NaN"}}, {"status": "failed", "exit_code": 5, "validation": {}}]
)
def test_a_diverged_run_is_the_worst_where_rates_are_compared(runs, summary):
    """At the highest rate of rank 4 and rank 64, one of two seeds each."""
    losses = list(draw_losses())
    for rank in (4, 64):
        runs = end_otherwise(runs, losses.index((rank, RATES[-1], 1)), **summary)
    found = judge_by_name(runs)
    assert [found[name].verdict.value for name in ALL] == ["confirmed", "contradicted", "confirmed"]


def test_a_diverged_run_gives_no_verdict_where_nothing_is_chosen(runs):
    claim = {**CLAIMS["falls"], "arguments": {"x": "lora.rank", "y": "validation.loss"}}
    stated = [state_otherwise(run, claims={"falls": claim}) for run in runs]
    (result,) = judge(end_otherwise(stated, 3, status="failed", exit_code=5, validation={}))
    assert result.verdict is Verdict.not_seen
    assert "diverged" in result.reason and "lora.rank=4" in result.reason


def test_a_stage_that_was_not_run_is_named(runs):
    claims = {"ratio": {**CLAIMS["ratio"], "stages": ["ranks", "smollm2"]}}
    stages = {**make_protocol()["stages"], "smollm2": {"half": "pretrained"}}
    found = judge_by_name([state_otherwise(run, claims=claims, stages=stages) for run in runs])
    assert found["ratio"].reason == "no run of stage smollm2 is here."


def test_one_seed_has_no_interval(tmp_path):
    found = judge_made(tmp_path, draw_losses(seeds=[0]))
    assert found["better"].reason == "one seed has no interval: run a second one."
    assert "run more seeds" in found["ratio"].reason


def test_a_run_that_was_done_twice_counts_once(runs):
    newer = {**runs[0].summary, "finished": "2026-02-01T00:00:00+00:00", "validation": {"loss": 9.0}}
    again = dataclasses.replace(runs[0], summary=newer, place=None)
    once, twice = (judge_by_name(some)["ratio"] for some in (runs, [*runs, again]))
    assert len(twice.runs) == len(once.runs)
    assert max(y for series in twice.obtained.drawing.series for _, y in series.points) == 9.0
    broken = dataclasses.replace(again, summary={"status": "failed", "exit_code": 4})
    assert judge_by_name([*runs, broken])["ratio"].obtained == once.obtained


def test_the_same_run_may_stand_in_two_stages(runs):
    """Stages are arms too, by the key that names them."""
    arms = {"of": {"protocol.stage": "again"}, "against": {"protocol.stage": "ranks"}}
    claim = {**CLAIMS["better"], "stages": ["ranks", "again"], "arguments": {"y": "validation.loss", **arms}}
    stages = {**make_protocol()["stages"], "again": {}}
    stated = [state_otherwise(run, claims={"same": claim}, stages=stages) for run in runs]
    again = [dataclasses.replace(state_otherwise(run, stage="again"), place=None) for run in stated]
    obtained = judge_by_name([*stated, *again])["same"].obtained
    assert (obtained.value, obtained.low, obtained.high) == (0.0, 0.0, 0.0)


def test_best_over_needs_several_settings(tmp_path):
    found = judge_made(tmp_path, draw_losses(rates=[1e-3]))
    assert "optimizer.learning_rate has one value only" in found["better"].reason


def test_a_best_setting_at_the_edge_is_said(tmp_path):
    found = judge_made(tmp_path, draw_losses(rates=RATES[:2]))
    assert "at the edge of those that were run" in " ".join(found["better"].notes)


# --- what was stated, and when


def test_a_yaml_that_was_edited_in_between_is_told(runs):
    claims = {**CLAIMS, "better": {**CLAIMS["better"], "expected": {"high": -5.0}}}
    edited = [state_otherwise(run, "2026-03-01T00:00:00+00:00", claims=claims) for run in runs[7:9]]
    result = judge_by_name([*runs[:7], *edited, *runs[9:]])["better"]
    assert result.verdict is Verdict.contradicted
    head, told = result.experiment.notes
    assert "The runs do not state the same" in head
    assert told == (
        "claims.better.expected.high was 0.0 in 22 runs, the last begun at 2026-01-01T00:00:00+00:00; it is -5.0 in the"
        " run begun at 2026-03-01T00:00:00+00:00."
    )


def test_runs_that_agree_say_nothing(runs):
    assert judge_by_name(runs)["ratio"].experiment.notes == ()


def test_quick_runs_are_an_experiment_of_their_own(runs, tmp_path):
    """By their folder, or where it was renamed, by the overrides that they were given."""
    (tmp_path / "overrides.yaml").write_text("- seed=0\n- trainer.max_steps=10\n")
    given = [dataclasses.replace(run, folder=tmp_path) for run in runs]
    named = [move(runs, tmp_path / name) for name in ("small-quick", "small-quick-0a1b2c")]
    for others in (given, *named):
        found = judge([*runs, *others])
        assert [(result.experiment.is_quick, result.name) for result in found] == [
            *((False, name) for name in ALL),
            *((True, name) for name in ALL),
        ]


def move(runs, folder):
    return [dataclasses.replace(run, folder=folder / "ranks" / run.folder.name) for run in runs]


def test_runs_with_overrides_of_their_own_are_another_experiment(runs, tmp_path):
    """They do not mix with those as stated, and their table says what they were given."""
    (tmp_path / "overrides.yaml").write_text("- seed=0\n- model.num_layers=1\n- lora.rank=4\n- runtime.threads=1\n")
    stages = {"ranks": {"grid": {"lora.rank": [4, 16, 64], "seed": [0, 1]}}}
    stated = [state_otherwise(run, stages=stages) for run in runs]
    found = judge([*stated, *(dataclasses.replace(run, folder=tmp_path) for run in stated)])
    assert [result.experiment.changes for result in found] == [()] * 3 + [("model.num_layers=1",)] * 3


@pytest.mark.parametrize(
    ("line", "is_stated"),
    [
        ("optimizer.learning_rate=0.001", True),
        ("optimizer.learning_rate=1e-3", True),
        ("optimizer.learning_rate=0.002", False),
        ("preset.source='/any/where/base'", True),
        ("trainer.max_steps=10", True),
        ("trainer.max_steps=20", True),
        ("trainer.max_steps=30", False),
        ("lora.targets=[query,value]", True),
        ("lora.targets=[query]", False),
        ("schedule=wsd", True),
        ("schedule=cosine", False),
        ("+model.own=3", False),
        ("experiment=small", True),
        ("protocol.stage=ranks", True),
        ("resume=auto", True),
        ("runtime.threads=1", True),
        ("+evaluation/task@evaluation.tasks.a=harness", True),
        ("logger=none", True),
    ],
)
def test_what_a_stage_states(line, is_stated):
    stage = StageConfig(
        overrides=["preset.source={base}/model", "trainer.max_steps=20", "schedule=wsd", "lora.targets=[query, value]"],
        grid={"optimizer.learning_rate": [1e-3, 1e-2]},
        quick=QuickConfig(overrides=["trainer.max_steps=10"]),
    )
    assert list_unstated([line], stage) == ([] if is_stated else [line])


def test_a_base_by_itself_is_no_experiment(runs):
    stages = {**make_protocol()["stages"], "base": {"cached": True}}
    assert judge([state_otherwise(runs[0], stage="base", stages=stages)]) == []


def test_runs_without_a_protocol_have_no_claims(runs):
    none = {"title": None, "source": None, "method": None, "differences": [], "stage": None}
    old = dataclasses.replace(runs[0], config={key: node for key, node in runs[0].config.items() if key != "protocol"})
    assert judge([state_otherwise(runs[0], **none, stages={}, claims={}), old]) == []
    assert read_protocol(old) is None


# --- damage


def test_an_estimator_of_another_version_is_said(runs):
    claims = {**CLAIMS, "ratio": {**CLAIMS["ratio"], "estimator": "of_tomorrow"}}
    found = judge_by_name([state_otherwise(run, claims=claims) for run in runs])
    assert "names no estimator: of_tomorrow" in found["ratio"].reason
    assert [found[name].verdict.value for name in ALL] == ["not seen", "contradicted", "confirmed"]


@pytest.mark.parametrize(
    "protocol", [{"claims": 3}, {"claims": {"a": {"expected": 3}}}, {"stages": {"x": {"half": 3}}}]
)
def test_a_damaged_protocol_is_an_input_error(runs, protocol):
    with pytest.raises(InputError, match=r"config\.yaml"):
        judge([state_otherwise(runs[0], **protocol)])


JUNK = [None, 3, -1.5, math.nan, "", "x\n\x1b[31mü", [], ["a"], {}, {"a": 1}, True, 10**400]


def list_paths(node, path=()):
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            yield from list_paths(value, (*path, key))


def put(node, path, value):
    return {**node, path[0]: value if len(path) == 1 else put(node[path[0]], path[1:], value)}


def test_any_damage_to_a_protocol_is_told_or_judged(runs):
    """Each value of the section in turn, in every run of two arms, with a value that nobody would write."""
    some = [run for run in runs if run.config["lora"]["rank"] != 16 and run.config["seed"] == 0]
    protocol = make_protocol()
    rng, told = random.Random(5), Counter()
    cases = [(path, value) for path in list_paths(protocol) for value in JUNK]
    for path, value in rng.sample(cases, 120):
        damaged = [state_otherwise(run, **put(protocol, path, value)) for run in some]
        try:
            for result in judge(damaged):
                assert result.reason.endswith(".")
                told[result.verdict] += 1
        except InputError as error:
            told[type(error)] += 1
    assert told[InputError] > 10 and told[Verdict.not_seen] > 10


def test_a_damaged_row_is_an_input_error(runs, tmp_path):
    claim = {**CLAIMS["falls"], "arguments": {"x": "lora.rank", "y": "mean loss"}}
    stated = [state_otherwise(run, claims={"falls": claim}) for run in runs]
    assert judge_by_name(stated)["falls"].obtained is not None
    (tmp_path / "metrics.jsonl").write_text('{"step": "x"}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        judge(replace_run(stated, 0, folder=tmp_path, place=None))
