"""Which tasks of lm-evaluation-harness a command line names, and what is wrong with it."""

import pytest

from llama_exp.commands import harness_options
from llama_exp.commands.parser import Parser
from llama_exp.errors import ConfigError, ExitCode
from llama_exp.evaluation import harness


def read(*arguments):
    parser = Parser("evaluate", "", [])
    harness_options.add_arguments(parser)
    return harness_options.read(parser.parse_args(arguments))


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: name)


def test_each_task_is_an_evaluation_of_its_own(installed):
    found = read("--harness", "arc_easy, hellaswag", "--harness", "my/tasks/a b.yaml", "--num-fewshot", "0", "--chat")
    assert {name: keys["tasks"] for name, keys in found.items()} == {
        "arc_easy": ["arc_easy"],
        "hellaswag": ["hellaswag"],
        "a_b": ["my/tasks/a b.yaml"],
    }
    assert found["a_b"] == {
        "tasks": ["my/tasks/a b.yaml"],
        "include_path": None,
        "num_fewshot": 0,
        "apply_chat_template": True,
        "online": False,
    }
    assert read() == {}


@pytest.mark.parametrize(
    ("arguments", "where", "what"),
    [
        (["--include-path", "tasks"], "--include-path", "has no effect without --harness"),
        (["--online"], "--online", "has no effect without --harness"),
        (["--num-fewshot", "0"], "--num-fewshot", "has no effect without --harness"),
        (["--harness", ""], "--harness", "names no task"),
        (["--harness", "arc_easy,"], "--harness", "names no task"),
        (["--harness", "a/x.yaml,b/x.yaml"], "--harness", "is given twice"),
    ],
)
def test_what_is_wrong_is_named(installed, arguments, where, what):
    with pytest.raises(ConfigError) as caught:
        read(*arguments)
    (problem,) = caught.value.problems
    assert (problem.where, problem.what) == (where, what)
    assert caught.value.exit_code == ExitCode.CONFIG


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'llama_exp\[eval\]'"):
        read("--harness", "arc_easy")
