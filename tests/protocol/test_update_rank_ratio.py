"""The ratio of ranks of two arms, on ranks whose ratio is known and on runs whose ranks are."""

import math

import numpy as np
import pytest
import scipy.stats
from questions import ask, measure_coverage, observe, reason_of
from weighted_runs import MODEL, low_rank, make_run, random_matrices, start_arrays

from llama_exp.architecture import linear_shapes
from llama_exp.protocol.quantities import find_quantity
from llama_exp.results import load_run


def arms_of(of, against):
    return {
        "of": [observe(seed, y=value) for seed, value in enumerate(of)],
        "against": [observe(seed, y=value) for seed, value in enumerate(against)],
    }


def test_the_ratio_is_the_geometric_mean_of_pairs():
    """Ratios 8, 16 and 32; the interval is SciPy's t interval of their logarithms."""
    found = ask("update_rank_ratio", arms_of([80.0, 80.0, 64.0], [10.0, 5.0, 2.0]))
    assert found.value == pytest.approx(16.0)
    low, high = scipy.stats.t.interval(0.95, 2, math.log(16), scipy.stats.sem(np.log([8, 16, 32])))
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert [y for _, y in found.drawing.series[0].points] == pytest.approx([8, 16, 32])


def test_intervals_hold_the_truth():
    """150 intervals of 95 %: from 135 on (99.9 % of binomial draws)."""

    def draw(rng):
        base = np.exp(rng.normal(size=3))
        return ask("update_rank_ratio", arms_of(20 * base * np.exp(0.2 * rng.normal(size=3)), base))

    assert measure_coverage(draw, 20.0)[0] >= 0.9


def test_no_ratio_to_nothing_and_none_of_one_seed():
    assert "seed 1 changed nothing" in reason_of(lambda: ask("update_rank_ratio", arms_of([3.0, 3.0], [1.0, 0.0])))
    assert "one seed" in reason_of(lambda: ask("update_rank_ratio", arms_of([3.0], [1.0])))


def test_the_quantity_is_the_mean_over_linear_layers(tmp_path):
    """Of a run in full without its embeddings; of adapters too; none of a run that has left nothing; kept in a file."""
    start, generator = start_arrays(), np.random.default_rng(0)
    after = {path: array + low_rank(generator, array.shape, 5) if array.ndim == 2 else array
             for path, array in start.items()}  # fmt: skip
    after["token_embedding/embeddings"] = start["token_embedding/embeddings"]
    full = make_run(tmp_path / "full", after)
    assert find_quantity(load_run(full), "update.rank") == 5.0
    assert (full / "update_rank.json").is_file() and not (full / "update_rank.png").exists()
    matrices = random_matrices(generator, linear_shapes(MODEL))
    lora = make_run(tmp_path / "lora", matrices=matrices, lora={"rank": 3})
    assert 1.0 <= find_quantity(load_run(lora), "update.rank") <= 3.0
    assert find_quantity(load_run(make_run(tmp_path / "none", status="running")), "update.rank") is None


def test_statistics_of_an_evaluation_over_its_steps(tmp_path):
    """By step, of sets that the run's config asks for; values that are no numbers count as what they are."""
    run = make_run(tmp_path / "run")
    with (run / "config.yaml").open("a") as file:
        file.write("evaluation: {sets: {source: {}}}\n")
    rows = [(0, 3.5), (20, 4.5), (10, 5.0)]
    lines = [f'{{"step": {step}, "name": "source", "loss": {loss}}}\n' for step, loss in rows]
    (run / "evaluation.jsonl").write_text("".join(lines) + '{"step": 30, "name": "other", "loss": 9.0}\n')
    loaded = load_run(run)
    found = {word: find_quantity(loaded, f"{word} evaluation.source.loss") for word in ("first", "last", "max", "min")}
    assert found == {"first": 3.5, "last": 4.5, "max": 5.0, "min": 3.5}
    assert find_quantity(loaded, "first evaluation.other.loss") is None
