"""What targets and patterns of targets mean. No framework."""

import pytest

from llama_exp.architecture import linear_shapes
from llama_exp.lora import targets as lora_targets

SIZES = {"num_layers": 2, "num_query_heads": 4, "hidden_dim": 32, "intermediate_dim": 48, "num_key_value_heads": 2}
PATHS = list(linear_shapes(SIZES))
QUERIES = [path for path in PATHS if path.endswith("query")]


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (["query"], {"query"}),
        (["attention"], {"query", "key", "value", "attention_output"}),
        (["mlp"], {"feedforward_gate_dense", "feedforward_intermediate_dense", "feedforward_output_dense"}),
        (["all-linear"], {path.rpartition("/")[2] for path in PATHS}),
        ([r".*/(key|value)"], {"key", "value"}),
        (["query", "mlp"], {"query", *lora_targets.MLP}),
    ],
)
def test_targets(targets, names):
    assert lora_targets.matching_paths(targets, PATHS) == [path for path in PATHS if path.rpartition("/")[2] in names]


def test_a_pattern_matches_whole_paths():
    assert lora_targets.matching_paths([r"transformer_layer_1/.*/query"], PATHS) == QUERIES[1:]
    assert lora_targets.matching_paths([PATHS[0]], PATHS) == PATHS[:1]
    assert lora_targets.matching_paths(["self_attention"], PATHS) == []
    assert lora_targets.matching_paths(["quer"], PATHS) == []


# --- patterns


def test_a_pattern_gives_its_value_to_the_layers_it_means():
    values = lora_targets.values_by_path({"query": 16, "transformer_layer_0/.*/value": 4}, PATHS[:3], 8)
    assert list(values.values()) == [16, 8, 4] and list(values) == PATHS[:3]
    assert set(lora_targets.values_by_path({}, PATHS, 8).values()) == {8}


@pytest.mark.parametrize(
    "pattern",
    [{}, {"query": 16, "mlp": 3}, {"transformer_layer_1/.*": 5}, {PATHS[0]: 1, "key": 2}, {"all-linear": 7}],
)
def test_the_shortest_pattern_says_the_same(pattern):
    values = lora_targets.values_by_path(pattern, PATHS, 8)
    shortest = lora_targets.shortest_pattern(values, 8)
    assert lora_targets.values_by_path(shortest, PATHS, 8) == values
    assert not list(lora_targets.pattern_problems("rank_pattern", shortest, ["all-linear"], PATHS))


def test_the_shortest_pattern_prefers_names():
    values = lora_targets.values_by_path({"query": 16, PATHS[2]: 4}, PATHS, 8)
    assert lora_targets.shortest_pattern(values, 8) == {"query": 16, PATHS[2]: 4}


def test_the_shortest_targets():
    assert lora_targets.shortest_targets(QUERIES, PATHS) == ["query"]
    assert lora_targets.shortest_targets(QUERIES[:1], PATHS) == QUERIES[:1]


def problems(pattern, targets=("query", "value"), key="rank_pattern"):
    return list(lora_targets.pattern_problems(key, pattern, targets, PATHS))


def test_a_pattern_that_means_nothing_is_named_with_the_nearest_name():
    (problem,) = problems({"query": 16, "vlaue": 4})
    assert (problem.where, problem.found) == ("lora.rank_pattern", "vlaue: 4")
    assert "did you mean value?" in problem.action
    (problem,) = problems({"atention": 4}, ["attention"], "alpha_pattern")
    assert problem.where == "lora.alpha_pattern" and "did you mean attention?" in problem.action


def test_a_pattern_of_layers_without_adapters_says_so():
    (problem,) = problems({"key": 4})
    assert "add it to lora.targets" in problem.action


@pytest.mark.parametrize("pattern", [{"query": 4, "attention": 8}, {"attention": 8, ".*/query": 4}])
def test_two_values_for_one_layer_are_named_together(pattern):
    (problem,) = problems(pattern)
    assert all(f"{target}: {rank}" in problem.found for target, rank in pattern.items()) and QUERIES[0] in problem.found
    assert problems(dict.fromkeys(pattern, 4)) == []


def test_targets_that_mean_nothing_do_not_accuse_the_patterns():
    assert problems({"query": 4}, ["querry"]) == []
