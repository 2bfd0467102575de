"""The content of reports on made-up runs; numbers against SciPy and by hand."""

import itertools
import math
import time

import numpy as np
import pytest
import scipy.stats
from made_runs import TOKENS_PER_STEP, attempt, make_config, make_grid, make_run

from llama_exp.errors import ConfigError
from llama_exp.report import Options, make_report
from llama_exp.report.contents import Scale
from llama_exp.report.spending import tell_branches
from llama_exp.results import load_runs

GRID = list(itertools.product((2, 4, 8), (1e-3, 1e-2), range(4)))


def draw_losses(points=GRID):
    """A loss for each point: lower for larger ranks, with noise of the seed that all ranks share."""
    generator = np.random.default_rng(11)
    return {
        (rank, rate, seed): float(2.8 - 0.05 * math.log2(rank) + 3 * rate + 0.01 * generator.normal())
        for rank, rate, seed in points
    }


def report_on(*folders, **options):
    return make_report(load_runs(folders), Options(**options))


@pytest.fixture(scope="module")
def losses():
    return draw_losses()


@pytest.fixture(scope="module")
def grid(tmp_path_factory, losses):
    return make_grid(tmp_path_factory.mktemp("grid") / "sweep", losses)


def test_groups_are_configs_over_seeds_best_first(grid, losses):
    report = report_on(grid)
    assert [key.path for key in report.keys] == ["lora.rank", "optimizer.learning_rate"]
    assert [(key.label, key.scale) for key in report.keys] == [("rank", Scale.log), ("learning_rate", Scale.log)]
    assert len(report.groups) == 6
    means = [group.estimates["validation.loss"].mean for group in report.groups]
    assert means == sorted(means)
    for group in report.groups:
        rank, rate = group.values.values()
        own = [losses[rank, rate, seed] for seed in range(4)]
        found = group.estimates["validation.loss"]
        interval = scipy.stats.ttest_1samp(own, 0.0).confidence_interval(0.95)
        assert (found.n, found.mean) == (4, pytest.approx(np.mean(own)))
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
        assert [report.run(number).seed for number in group.runs] == [0, 1, 2, 3]
        assert [report.run(number).figures["validation.loss"] for number in group.runs] == own


def test_comparisons_are_paired_by_seed(grid, losses):
    report = report_on(grid, baseline="rank=2")
    assert report.comparisons.baseline == "rank=2"
    assert len(report.comparisons.rows) == 4  # each rate against rank 2 at the same rate
    raw = []
    for row in report.comparisons.rows:
        group, baseline = report.group(row.group), report.group(row.baseline)
        assert baseline.values == {**group.values, "lora.rank": 2}
        rate = group.values["optimizer.learning_rate"]
        one = [losses[group.values["lora.rank"], rate, seed] for seed in range(4)]
        other = [losses[2, rate, seed] for seed in range(4)]
        interval = scipy.stats.ttest_rel(one, other).confidence_interval(0.95)
        permuted = scipy.stats.permutation_test(
            (one, other), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf, vectorized=False
        )
        assert row.differences == pytest.approx(np.subtract(one, other))
        assert (row.difference.low, row.difference.high) == pytest.approx((interval.low, interval.high))
        assert row.p == pytest.approx(permuted.pvalue)
        assert row.better.count == sum(a < b for a, b in zip(one, other, strict=True))
        assert "4 pairs cannot give a p below 0.125" in row.limits[0]
        assert row.bootstrap is None
        raw.append(row.p)
    held = [row.p_holm for row in report.comparisons.rows]
    assert min(held) == pytest.approx(min(1.0, 4 * min(raw)))
    assert "cannot be below 0.5" in " ".join(report.comparisons.notes)


def test_eight_seeds_have_a_bootstrap(tmp_path):
    losses = draw_losses(itertools.product((2, 8), (1e-3,), range(8)))
    (row,) = report_on(make_grid(tmp_path / "sweep", losses), baseline="lora.rank=2").comparisons.rows
    expected = scipy.stats.bootstrap(
        (list(row.differences),), np.mean, method="BCa", n_resamples=9_999, rng=np.random.default_rng(0)
    ).confidence_interval
    assert row.bootstrap == pytest.approx((expected.low, expected.high))
    assert row.limits == ()


@pytest.mark.parametrize("baseline", ["lora.rank=4,optimizer.learning_rate=1e-3", "rank=4,learning_rate=0.001"])
def test_one_config_is_the_baseline_of_all_others(grid, baseline):
    report = report_on(grid, baseline=baseline)
    assert len(report.comparisons.rows) == 5
    assert {row.baseline for row in report.comparisons.rows} == {
        group.number for group in report.groups if group.label == "rank=4 learning_rate=0.001"
    }


def test_a_run_names_its_config_as_the_baseline(grid):
    run = report_on(grid).runs[9]
    report = report_on(grid, baseline=str(run.folder))
    assert report.comparisons.baseline == report.group(run.group).label


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("rank=3", "lora.rank=2|4|8"),
        ("rnk=2", "keys: lora.rank"),
        ("model.num_layers=2", "all configs have these values"),
        ("seed=0", "choose among lora.rank=2|4|8"),
        ("/somewhere/else", "the folder of one of the runs"),
        ("rank=[", "as in config.yaml"),
    ],
)
def test_a_baseline_that_there_is_not(grid, baseline, message):
    with pytest.raises(ConfigError, match="--baseline") as caught:
        report_on(grid, baseline=baseline)
    assert message in str(caught.value)


def test_without_a_baseline_the_first_run_is_it(grid):
    comparisons = report_on(grid).comparisons
    assert comparisons.baseline == "rank=2 learning_rate=0.001"
    assert "no other was asked for" in comparisons.chosen


def test_the_best_is_bold_only_if_its_interval_excludes_the_second(tmp_path):
    clear = make_grid(tmp_path / "clear", {(r, 1e-3, s): 1.0 / r + 0.001 * s for r in (2, 8) for s in range(3)})
    unclear = make_grid(tmp_path / "unclear", {(r, 1e-3, s): 1.0 + 0.01 / r + s for r in (2, 8) for s in range(3)})
    alone = make_grid(tmp_path / "alone", {(r, 1e-3, 0): 1.0 / r for r in (2, 8)})
    assert [group.best_in for group in report_on(clear).groups] == [("validation.loss",), ()]
    assert [group.best_in for group in report_on(unclear).groups] == [(), ()]
    assert [group.best_in for group in report_on(alone).groups] == [(), ()]


def test_runs_that_did_not_finish_are_told_apart_and_paid_for(tmp_path):
    make_run(tmp_path / "a0", make_config(0), 2.5)
    make_run(tmp_path / "a1", make_config(1), math.nan)
    make_run(tmp_path / "a2", make_config(2), 2.6, status="failed", summary={"reason": "RuntimeError: boom\nmore"})
    make_run(tmp_path / "a3", make_config(3), 2.4, status="pruned")
    make_run(tmp_path / "a4", make_config(4), 2.4, status="killed")
    make_run(tmp_path / "a5", make_config(5), None)
    report = report_on(tmp_path)
    assert report.groups[0].runs == (1,)
    assert [run.reason for run in report.runs] == [
        None,
        "validation.loss is nan",
        "failed: RuntimeError: boom",
        "pruned",
        "it runs still, or was killed",
        "it has no validation.loss",
    ]
    assert "look better than these configs are" in " ".join(report.notes)
    assert report.total_cost.runs == 6
    assert report.total_cost.failed_attempts == 1
    assert report.total_cost.failed_seconds == 20.0
    killed = report.costs[4]
    assert (killed.seconds, killed.is_least) == (4.0, True)  # of its last row
    assert killed.tokens == 20 * 1024


def test_all_runs_failed(tmp_path):
    for seed in range(2):
        make_run(tmp_path / str(seed), make_config(seed), None, status="failed")
    report = report_on(tmp_path)
    assert report.groups[0].estimates == {}
    assert report.comparisons is None
    assert "nothing to rank" in report.notes[0]


def test_one_run_has_no_interval_and_that_is_said(tmp_path):
    report = report_on(make_run(tmp_path / "alone"))
    (group,) = report.groups
    assert group.estimates["validation.loss"].low is None
    assert group.label == "all runs"
    assert "one seed" in report.notes[0]
    assert report.comparisons is None
    assert report.coordinates is None


def test_a_run_that_began_with_anothers_state_costs_its_own_steps(tmp_path):
    origin = {"step": 10, "tokens": 10 * TOKENS_PER_STEP, "seconds": 2.0, "config_hash": "c" * 64}
    make_run(tmp_path / "trunk", make_config(trainer={"max_steps": 40}), config_hash="c" * 64)
    longer = make_config(trainer={"max_steps": 50})
    make_run(tmp_path / "branch", longer, config_hash="d" * 64, branch=origin)
    report = report_on(tmp_path)
    branch, trunk = sorted(report.costs, key=lambda cost: cost.tokens)
    assert trunk.tokens - branch.tokens == 10 * TOKENS_PER_STEP
    assert report.total_cost.trunk_tokens == 0 and report.total_cost.branched == 1
    alone = report_on(tmp_path / "branch")
    assert alone.total_cost.trunk_tokens == 10 * TOKENS_PER_STEP
    assert "1 run that began" in tell_branches(alone.total_cost)
    assert "are not here: 10.2k tokens more" in tell_branches(alone.total_cost)
    assert tell_branches(report_on(tmp_path / "trunk").total_cost) == ""


def test_the_same_run_twice_counts_once(tmp_path):
    make_run(tmp_path / "first", loss=2.5, summary={"finished": "2026-01-01T00:00:00+00:00"})
    make_run(tmp_path / "second", loss=2.4, summary={"finished": "2026-01-02T00:00:00+00:00"})
    report = report_on(tmp_path, tmp_path / "first")
    assert report.groups[0].estimates["validation.loss"].mean == 2.4
    assert report.runs[0].reason == "run 2 is newer and has the same config and seed"
    assert report.total_cost.attempts == 2


def test_what_is_no_science_makes_no_groups(tmp_path):
    for seed, backend in enumerate(("jax", "tensorflow")):
        make_run(tmp_path / backend, make_config(seed, runtime={"backend": backend}, name=backend))
    report = report_on(tmp_path)
    assert len(report.groups) == 1
    assert report.title == "jax, tensorflow"


def test_keys_that_nobody_stated_follow_one_that_is(tmp_path):
    for number, steps in enumerate((40, 80)):
        config = make_config(trainer={"max_steps": steps}, schedule={"warmup_steps": steps // 10})
        command = f"python train.py trainer.max_steps={steps}"
        make_run(tmp_path / str(number), config, starts=[{"command": command}])
    (key,) = report_on(tmp_path).keys
    assert (key.path, key.follows) == ("trainer.max_steps", ("schedule.warmup_steps",))


def test_two_stated_keys_are_two_columns(tmp_path):
    for number, (rank, rate) in enumerate(((4, 1e-3), (8, 1e-2))):
        command = f"python train.py lora.rank={rank} optimizer.learning_rate={rate}"
        make_run(tmp_path / str(number), make_config(0, rank, rate), starts=[{"command": command}])
    assert [key.label for key in report_on(tmp_path).keys] == ["rank", "learning_rate"]


def test_other_data_under_one_config_is_told(tmp_path):
    for seed in range(2):
        prints = {split: {"fingerprint": f"{seed}-{split}"} for split in ("train", "validation")}
        make_run(tmp_path / str(seed), make_config(seed), dataset=prints)
    notes = " ".join(report_on(tmp_path).notes)
    assert "validated on 2 different sets of rows" in notes
    assert "trained on different data" in notes


def test_one_seed_each_is_compared_only_if_asked_for(tmp_path):
    sweep = make_grid(tmp_path / "sweep", {(rank, 1e-3, 0): 2.0 + rank / 10 for rank in (2, 4)})
    assert report_on(sweep).comparisons is None
    (row,) = report_on(sweep, baseline="rank=2").comparisons.rows
    assert (row.p, row.difference.low) == (1.0, None)
    assert "One pair has no interval" in row.limits[0]


def test_seeds_that_only_one_side_has_are_in_no_pair(tmp_path):
    losses = {(rank, 1e-3, seed): 2.0 + rank / 10 for rank in (2, 4) for seed in (0, 1, 2)}
    del losses[4, 1e-3, 2]
    losses[4, 1e-3, 7] = 2.2
    (row,) = report_on(make_grid(tmp_path / "sweep", losses)).comparisons.rows
    assert row.seeds == (0, 1)
    assert row.unpaired == (2, 7)
    make_run(tmp_path / "other", make_config(99, 16))  # is first by its name
    report = report_on(tmp_path)
    assert report.comparisons is None
    assert "name another baseline" in " ".join(report.notes)
    last = report_on(tmp_path, baseline="rank=2").comparisons.rows[-1]
    assert (last.pairs, last.p, last.difference) == ((), None, None)
    assert "No seed was run with both" in last.limits[0]


def test_attempts_are_all_paid_for(tmp_path):
    events = [
        *attempt(0, 1, "failed", 7, "RuntimeError: boom"),
        *attempt(0, 2, "finished", 20),
        *attempt(1, 1, None),
        *attempt(1, 2, "finished", 30),
        *attempt(2, 1, "failed", 5, "MemoryError"),  # before it made a folder
    ]
    losses = {(2, 1e-3, 0): 2.5, (2, 1e-3, 1): 2.6, (2, 1e-3, 2): None}
    sweep = make_grid(tmp_path / "sweep", losses, events)
    report = report_on(sweep)
    assert [cost.attempts for cost in report.costs] == [2, 2]
    assert (report.costs[0].seconds, report.costs[0].failed_seconds) == (27.0, 7.0)
    assert (report.costs[1].seconds, report.costs[1].is_least) == (30.0, True)
    total = report.total_cost
    assert (total.attempts, total.failed_attempts, total.outside) == (5, 2, 1)
    assert (total.seconds, total.failed_seconds) == (62.0, 12.0)
    one_job = report_on(load_runs([sweep])[0].folder)
    assert one_job.total_cost.outside == 0


def test_arithmetic_is_the_plans(tmp_path):
    config = make_config(rank=0)
    report = report_on(make_run(tmp_path / "run", config))
    model = config["model"]
    D, F, V, S = 64, 128, 512, 128
    matrices = model["num_layers"] * (2 * D * D + 2 * D * 32 + 3 * D * F) + V * D
    assert report.costs[0].flops == (6 * matrices + 12 * model["num_layers"] * D * S) * report.costs[0].tokens


@pytest.mark.parametrize("model", [{"_target_": "mine.Model", "hidden_dim": None}, {"num_layers": 2**40}])
def test_a_model_of_unknown_size_has_no_known_arithmetic(tmp_path, model):
    report = report_on(make_run(tmp_path / "run", make_config(model=model)))
    assert report.costs[0].flops is None
    assert report.total_cost.flops is None


def test_figures_of_evaluations_are_columns(tmp_path):
    evaluation = {"docs": {"accuracy": 0.5, "items": 10, "seconds": 1.0}}
    make_run(tmp_path / "run", summary={"evaluation": evaluation})
    report = report_on(tmp_path)
    assert [figure.path for figure in report.figures] == ["validation.loss", "evaluation.docs.accuracy"]
    assert report_on(tmp_path, figure="evaluation.docs.accuracy").figure.label == "docs: accuracy"
    assert report_on(tmp_path, figure="evaluation.docs.items:max").figure.path == "evaluation.docs.items"


@pytest.mark.parametrize(
    ("figure", "message"),
    [("validation.los", "did you mean validation.loss?"), ("steps", "--figure steps:min or steps:max")],
)
def test_a_figure_that_there_is_not(grid, figure, message):
    with pytest.raises(ConfigError, match="--figure") as caught:
        report_on(grid, figure=figure)
    assert message in str(caught.value)


def test_what_the_runs_call_their_objective_ranks(tmp_path):
    summary = {"evaluation": {"docs": {"accuracy": 0.5}}}
    make_run(tmp_path / "run", make_config(objective_metric="evaluation.docs.accuracy"), summary=summary)
    assert report_on(tmp_path).figure.path == "evaluation.docs.accuracy"


def test_curves_are_those_of_the_files(tmp_path):
    folder = make_run(tmp_path / "run", curve=(4.0, math.nan))
    (folder / "evaluation.jsonl").write_text(
        '{"step": 20, "name": "docs", "kind": "set", "loss": 2.0, "accuracy": "NaN", "items": 5, "seconds": 1.0}\n'
        '{"step": null, "name": "docs", "kind": "set", "loss": 1.0, "items": 5}\n'
    )
    curves = {curve.figure: curve for curve in report_on(folder).curves}
    assert list(curves) == ["validation.loss", "train.loss", "evaluation.docs.loss", "evaluation.docs.accuracy"]
    assert curves["validation.loss"].steps == (0, 10, 20)
    assert curves["validation.loss"].values[0] == 4.0
    assert math.isnan(curves["validation.loss"].values[1])
    assert curves["evaluation.docs.loss"].values == (2.0,)


def test_effects_are_lines_of_one_key(grid):
    rank, rate = report_on(grid).effects
    assert [(line.label, len(line.points)) for line in rank.lines] == [
        ("learning_rate=0.001", 3),
        ("learning_rate=0.01", 3),
    ]
    assert [point.value for point in rank.lines[0].points] == [2, 4, 8]
    assert len(rate.lines) == 3


def test_coordinates_lie_between_the_ends(grid):
    report = report_on(grid)
    assert [axis.label for axis in report.coordinates.axes][:2] == ["rank", "learning_rate"]
    assert len(report.coordinates.lines) == 24
    by_value = sorted(report.coordinates.lines, key=lambda line: line.value)
    assert by_value[0].positions[-1] == 1.0  # the lowest loss is on top
    assert by_value[-1].positions[-1] == 0.0
    assert sorted({line.positions[0] for line in report.coordinates.lines}) == pytest.approx([0.0, 0.5, 1.0])


def test_two_sweeps_with_other_keys_stand_in_one_report(tmp_path):
    make_grid(tmp_path / "one", {(2, 1e-3, seed): 2.5 for seed in range(2)})
    make_run(tmp_path / "two", make_config(0, 4, own={"größe|$_%": "a|b$_%"}))
    make_run(tmp_path / "three", make_config(0, 4, own={"größe|$_%": "c"}))
    report = report_on(tmp_path)
    assert [key.path for key in report.keys] == ["lora.rank", "own.größe|$_%"]
    labels = {group.label for group in report.groups}
    assert labels == {"rank=2 größe|$_%=-", "rank=4 größe|$_%=a|b$_%", "rank=4 größe|$_%=c"}


def test_hundreds_of_runs_take_seconds(tmp_path):
    points = itertools.product(range(1, 11), (1e-3, 1e-2), range(10))
    make_grid(tmp_path / "sweep", draw_losses(points))
    runs = load_runs([tmp_path / "sweep"])
    began = time.perf_counter()
    report = make_report(runs, Options())
    assert time.perf_counter() - began < 2.0
    assert len(report.groups) == 20
    assert len(report.comparisons.rows) == 19
