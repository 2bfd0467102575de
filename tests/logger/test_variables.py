"""W&B's variables as defaults below YAML: what wins, where it comes from, what is refused, whose run an agent's is."""

import pytest

from llama_exp.limits.logger import LoggerMode
from llama_exp.logger.variables import VARIABLES, find_variable_problems, settle

OPEN = {"mode": None, "project": None, "entity": None, "tags": None}
STATED = {"mode": LoggerMode.offline, "project": "mine", "entity": "us", "tags": ["a"]}
DEFAULTS = {"group": "sweep", "name": "run"}
SET = {
    "WANDB_MODE": "online",
    "WANDB_PROJECT": "theirs",
    "WANDB_ENTITY": "them",
    "WANDB_TAGS": "b, c",
    "WANDB_RUN_GROUP": "grouped",
    "WANDB_NAME": "named",
    "WANDB_NOTES": "noted",
    "WANDB_JOB_TYPE": "kind",
}


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    for name in (*VARIABLES.values(), "WANDB_DISABLED", "WANDB_RUN_ID", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(name, raising=False)
    return lambda values: [monkeypatch.setenv(name, value) for name, value in values.items()]


def test_what_is_stated_wins_and_every_source_is_named(variables):
    variables(SET)
    found = settle(STATED, {}, DEFAULTS)
    assert (found.mode, found.project, found.entity, found.tags) == (LoggerMode.offline, "mine", "us", ["a"])
    assert (found.group, found.name, found.notes, found.job_type) == ("grouped", "named", "noted", "kind")
    assert found.sources == {key: "config" for key in OPEN} | {
        key: VARIABLES[key] for key in ("group", "name", "notes", "job_type")
    }


def test_a_variable_fills_what_is_open(variables):
    variables(SET)
    found = settle(OPEN, {}, DEFAULTS)
    assert (found.mode, found.project, found.entity, found.tags) == (LoggerMode.online, "theirs", "them", ["b", "c"])
    assert found.sources == VARIABLES


def test_without_either_there_are_defaults():
    found = settle(OPEN, {}, DEFAULTS)
    assert (found.mode, found.project, found.entity, found.tags) == (LoggerMode.offline, "llama_exp", None, [])
    assert (found.group, found.name, found.notes, found.job_type) == ("sweep", "run", None, None)
    assert set(found.sources.values()) == {"default"}


def test_no_tags_is_a_statement(variables):
    variables(SET)
    assert settle(STATED | {"tags": []}, {}, DEFAULTS).tags == []


def test_a_run_that_goes_on_stays_where_it_is(variables):
    """Another shell with other variables does not send the second half elsewhere; the mode may change."""
    variables(SET)
    recorded = {"project": "first", "entity": "we", "tags": ["t"], "mode": "offline", "run_id": "id1"}
    found = settle(OPEN, recorded, DEFAULTS)
    assert (found.project, found.entity, found.tags, found.run_id) == ("first", "we", ["t"], "id1")
    assert (found.mode, found.sources["project"]) == (LoggerMode.online, "run.json")


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        ({"WANDB_MODE": "dryrun"}, LoggerMode.offline),
        ({"WANDB_MODE": "run"}, LoggerMode.online),
        ({"WANDB_MODE": "Disabled"}, LoggerMode.disabled),
        ({"WANDB_MODE": ""}, LoggerMode.offline),
        ({"WANDB_DISABLED": "true"}, LoggerMode.disabled),
        ({"WANDB_DISABLED": "false"}, LoggerMode.offline),
        ({"WANDB_DISABLED": "true", "WANDB_MODE": "online"}, LoggerMode.online),
    ],
)
def test_words_for_a_mode(variables, values, mode):
    variables(values)
    assert settle(OPEN, {}, DEFAULTS).mode is mode


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("WANDB_PROJECT", "team/project", "logger.project="),
        ("WANDB_PROJECT", "x" * 129, "logger.project="),
        ("WANDB_ENTITY", "a:b", "logger.entity="),
        ("WANDB_TAGS", f"a,{'x' * 65}", "logger.tags="),
        ("WANDB_TAGS", "a,,b", "logger.tags="),
        ("WANDB_RUN_GROUP", "g" * 129, "unset WANDB_RUN_GROUP"),
        ("WANDB_NAME", "n" * 129, "unset WANDB_NAME"),
        ("WANDB_MODE", "shared", "logger.mode="),
    ],
)
def test_a_value_that_w_and_b_would_refuse_is_refused_before_the_run(variables, name, value, word):
    variables({name: value})
    (problem,) = find_variable_problems(OPEN)
    assert problem.where == name and problem.found[:100] == value[:100] and word in problem.action
    if name in ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_TAGS", "WANDB_MODE"):
        assert list(find_variable_problems(STATED)) == []


def test_a_run_of_wandb_agent_is_the_agents(variables):
    """Its id, and project and entity of its sweep, also where YAML has others; online, for that was asked."""
    variables({"WANDB_SWEEP_ID": "sw", "WANDB_RUN_ID": "id9", "WANDB_PROJECT": "theirs", "WANDB_ENTITY": "them"})
    found = settle(STATED | {"mode": None}, {"run_id": "id1", "project": "first"}, DEFAULTS)
    assert (found.run_id, found.project, found.entity, found.mode) == ("id9", "theirs", "them", LoggerMode.online)
    assert found.of_agent and found.sources["project"] == "WANDB_PROJECT (wandb agent)"
    assert settle(STATED, {}, DEFAULTS).mode is LoggerMode.offline
