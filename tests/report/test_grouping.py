"""Which runs are the same experiment with another seed."""

import dataclasses
from pathlib import Path

from made_runs import make_config, make_run

from llama_exp.report import Options, make_report
from llama_exp.report.grouping import find_keys, group_runs
from llama_exp.results import RunResult, load_runs

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


def test_values_of_younger_keys_are_those_that_runs_have(tmp_path):
    """At its default a younger key decides nothing, and stands in the table; runs from before have the default."""
    for number, trainer in enumerate([{"keep_best": None}, {"keep_best": "validation.loss"}, {}]):
        make_run(tmp_path / str(number), make_config(number, trainer=trainer))
    report = make_report(load_runs([tmp_path]), Options())
    (key,) = report.keys
    assert (key.path, set(key.values)) == ("trainer.keep_best", {None, "validation.loss"})
    assert {group.label: group.runs for group in report.groups} == {
        "keep_best=null": (1, 3),
        "keep_best=validation.loss": (2,),
    }
