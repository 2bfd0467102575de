"""Which runs are the same experiment with another seed."""

import dataclasses
from pathlib import Path

from llama_exp.report.grouping import find_keys, group_runs
from llama_exp.results import RunResult

RUN = RunResult(Path("/run"), {"seed": 0, "lora": {"rank": 8}, "trainer": {"max_steps": 10}}, {}, {})


def with_trainer(**keys):
    return dataclasses.replace(RUN, config={**RUN.config, "seed": 1, "trainer": {"max_steps": 10, **keys}})


def test_runs_from_before_a_key_are_the_same_experiment_where_it_is_not_used():
    later = with_trainer(keep_best=None, export="last", stop_early=None, patience=1, min_delta=0.0, overfit_below=None)
    assert group_runs([RUN, later]) == [[0, 1]]
    assert find_keys([RUN.values, later.values], ()) == ()


def test_a_key_that_is_used_is_another_experiment():
    later = with_trainer(keep_best="validation.loss", export="best", stop_early=None, patience=1)
    assert group_runs([RUN, later]) == [[0], [1]]
    assert {key.path for key in find_keys([RUN.values, later.values], ["trainer.export"])} == {"trainer.export"}
