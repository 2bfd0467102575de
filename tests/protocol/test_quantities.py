"""Numbers of runs by name."""

import dataclasses
import math

import pytest
from made_runs import MODEL, TOKENS_PER_STEP, make_config, make_run

from llama_exp.architecture import count_flops_per_token, count_parameters
from llama_exp.files import metrics_file
from llama_exp.limits.estimators import COMPUTED, ROW_KEYS, STATISTICS
from llama_exp.protocol import quantities
from llama_exp.protocol.quantities import find_quantity, has_diverged
from llama_exp.results import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = make_config(rank=0, lora={"targets": []})
    return load_run(make_run(tmp_path_factory.mktemp("runs") / "one", config, loss=2.5, curve=(4.0, 3.0)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lora.rank", 0.0),
        ("optimizer.learning_rate", 1e-3),
        ("validation.loss", 2.5),
        ("steps", 20.0),
        ("mean loss", 0.9 * 4.0 * 0.75),
        ("first loss", 0.9 * 4.0),
        ("last loss", 0.9 * 2.0),
        ("max loss", 0.9 * 4.0),
        ("min loss", 0.9 * 2.0),
        ("parameters.all", count_parameters(MODEL)),
        ("parameters.non_embedding", count_parameters(MODEL) - 512 * 64),
        ("flops", count_flops_per_token(MODEL, {}, 128) * 20 * TOKENS_PER_STEP),
        ("flops.non_embedding", 6 * (count_parameters(MODEL) - 512 * 64) * 20 * TOKENS_PER_STEP),
        ("steps.trained", 20.0),
    ],
)
def test_quantities(run, name, value):
    assert find_quantity(run, name) == pytest.approx(value)


@pytest.mark.parametrize("name", ["name", "lora.targets", "preset.offline", "validation.accuracy", "mean mfu", "lora"])
def test_what_is_no_number_is_none(run, name):
    assert find_quantity(run, name) is None


def test_numbers_that_are_not_finite_stay_numbers(run):
    (run.folder / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": "NaN"}\n')
    again = dataclasses.replace(run, summary={"validation": {"loss": "Infinity"}})
    assert math.isnan(find_quantity(again, "mean loss"))
    assert find_quantity(again, "validation.loss") == math.inf


def test_untied_outputs_are_no_part_of_the_rest(run):
    config = {**run.config, "model": {**MODEL, "tie_word_embeddings": False}}
    other = dataclasses.replace(run, config=config)
    assert find_quantity(other, "parameters.non_embedding") == find_quantity(run, "parameters.non_embedding")
    assert find_quantity(other, "parameters.all") == find_quantity(run, "parameters.all") + 512 * 64


@pytest.mark.parametrize("model", [{"_target_": "mine"}, None, 3, {**MODEL, "num_layers": 10**9}])
def test_a_model_of_the_users_own_has_no_size(run, model):
    other = dataclasses.replace(run, config={**run.config, "model": model})
    assert [find_quantity(other, name) for name in ("parameters.all", "flops")] == [None, None]


def test_a_branch_trained_what_came_after_its_checkpoint(run):
    branch = {"step": 15, "tokens": 15 * TOKENS_PER_STEP}
    branched = dataclasses.replace(run, record={**run.record, "branch": branch})
    assert find_quantity(branched, "steps") == 20.0
    assert find_quantity(branched, "steps.trained") == 5.0
    assert find_quantity(branched, "flops") == pytest.approx(find_quantity(run, "flops") / 4)


def test_a_number_that_no_float_holds_is_none(run):
    huge = dataclasses.replace(run, config={**run.config, "lora": {"rank": 10**400}})
    assert find_quantity(huge, "lora.rank") is None


def test_diverged_runs_say_so_by_their_exit_code(run):
    assert not has_diverged(run)
    assert has_diverged(dataclasses.replace(run, summary={"exit_code": 5}))


def test_names_are_those_that_claims_are_checked_by():
    assert set(quantities._COMPUTED) == set(COMPUTED)
    assert set(quantities._STATISTICS) == set(STATISTICS)
    assert set(metrics_file._FIGURES) - {"perplexity"} == set(ROW_KEYS)  # of validation rows alone
