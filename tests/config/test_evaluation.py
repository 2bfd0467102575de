"""The section `evaluation`: what a command line may say of sets and tasks, and what is told before anything runs."""

import pytest

from llama_exp.config.check import check_arguments, config_hash
from llama_exp.config.check.typed import Typing
from llama_exp.config.evaluation import list_evaluations, list_figures
from llama_exp.config.identity import continuation_hash
from llama_exp.config.schema.evaluation import MultipleChoiceConfig
from llama_exp.config.stated_evaluation import Stated, compose_evaluation, read_recorded, type_dataset
from llama_exp.errors import ConfigError

QUIZ = "+evaluation/task@evaluation.tasks.quiz=multiple_choice"
DOCS = "+dataset@evaluation.sets.docs=text_files"


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quiz.jsonl").write_text("{}")
    (tmp_path / "quiz.yaml").write_text('file: quiz.jsonl\nprompt: "{q}: {a}"\n')
    return tmp_path


def config(*lines):
    return check_arguments(["logger=none", *lines]).config


def problems(*lines):
    with pytest.raises(ConfigError) as error:
        config(*lines)
    return {problem.where: problem for problem in error.value.problems}


def test_sets_and_tasks_of_a_command_line_stand_beside_those_of_the_choice():
    found = config(
        "evaluation=python_qa",
        "dataset.sequence_length=64",
        DOCS,
        "evaluation.sets.docs.files=a file.txt",
        QUIZ,
        "evaluation.tasks.quiz.file=quiz.jsonl",
        "evaluation.tasks.quiz.prompt='{question}\\nAnswer:'",
    )
    assert list_evaluations(found) == ["python_qa", "docs", "python_choices", "quiz"]
    assert found.evaluation.sets["python_qa"].sequence_length == 64
    assert found.evaluation.sets["docs"].files == ["a file.txt"]
    assert isinstance(found.evaluation.tasks["quiz"], MultipleChoiceConfig)
    figures = list_figures(found)
    assert figures[:3] == [f"evaluation.python_qa.{name}" for name in ("loss", "perplexity", "bits_per_byte")]
    assert "evaluation.quiz.normalized_accuracy" in figures and len(figures) == 10


def test_every_mistake_at_once():
    found = problems(
        DOCS,
        "evaluation.sets.docs.files=a.txt",
        "evaluation.sets.docs.sequence_length=1",
        "evaluation.whole_sets=[other]",
        QUIZ,
        "evaluation.tasks.quiz.file=none.jsonl",
        "evaluation.tasks.quiz.prompt='{'",
        "evaluation.tasks.quiz.num_examples=2",
        "+evaluation/task@evaluation.tasks.docs=generation",
        "evaluation.tasks.docs.file=quiz.jsonl",
        "evaluation.tasks.docs.stop_texts=['']",
    )
    assert set(found) == {
        "evaluation.sets.docs.sequence_length",
        "evaluation.whole_sets",
        "evaluation.tasks.quiz.file",
        "evaluation.tasks.quiz.prompt",
        "evaluation.tasks.quiz.num_examples",
        "evaluation.tasks.docs",
        "evaluation.tasks.docs.stop_texts",
    }


@pytest.mark.parametrize(
    ("lines", "where", "action"),
    [
        (["evaluation.limit=0"], "evaluation.limit", "at least 1"),
        (["evaluation=nothing"], "evaluation", "choices: none, python_qa"),
        (["evaluation.everysteps=3"], "evaluation.everysteps", "every_steps"),
        ([DOCS.lstrip("+")], "dataset", "write +dataset@"),
        (["evaluation.sets.docs=3"], "evaluation.sets.docs", "set its keys"),
        (["evaluation.tasks.quiz={file: quiz.jsonl}"], "evaluation.tasks.quiz._target_", "MultipleChoice"),
        (
            [QUIZ, "evaluation.tasks.quiz.file=quiz.jsonl", "+evaluation.tasks.quiz.foo=1"],
            "evaluation.tasks.quiz.foo",
            "",
        ),
        (["evaluation.tasks.x={_target_: os.system}"], "evaluation.tasks.x._target_", "trusted_modules"),
        (["evaluation.tasks.x={_target_: llama_exp.dataset.Jsonl}"], "evaluation.tasks.x._target_", ""),
    ],
    ids=str,
)
def test_wrong_lines(lines, where, action):
    found = problems(*lines)
    assert where in found and action in found[where].action


def test_evaluations_are_no_science_until_one_decides():
    plain, other = config(), config("evaluation=python_qa", "evaluation.limit=3")
    assert config_hash(plain) == config_hash(other)
    assert continuation_hash(plain) == continuation_hash(other)


def test_a_command_has_sets_from_files_and_tasks_with_defaults():
    stated = Stated(
        sets={"docs": "a b.txt", "chats": "c.jsonl"}, tasks={"quiz": "quiz.yaml"}, limit=5, trusted_modules=("my",)
    )
    composed = compose_evaluation(stated)
    section = composed.evaluation
    assert section.whole_sets == ["docs", "chats"] and section.limit == 5 and composed.trusted_modules == ["my"]
    assert section.sets["chats"]._target_.endswith("Jsonl") and section.sets["docs"].files == ["a b.txt"]
    assert section.tasks["quiz"].prompt == "{q}: {a}" and section.tasks["quiz"].separator == " "


def test_a_file_of_a_command_may_build_on_choices(files):
    (files / "both.yaml").write_text(
        "defaults: [/dataset@sets.docs: text_files, task@tasks.facts: generation, _self_]\n"
        "sets: {docs: {files: [x.txt]}}\ntasks: {facts: {file: quiz.jsonl}}\n"
    )
    section = compose_evaluation(Stated("both.yaml")).evaluation
    assert section.sets["docs"].files == ["x.txt"] and section.tasks["facts"].max_new_tokens == 32


@pytest.mark.parametrize(
    ("stated", "where"),
    [
        (Stated("none.yaml"), "--evaluation"),
        (Stated(tasks={"a": "none.yaml"}), "--task"),
        (Stated(sets={"a/b": "x.txt"}), "--set"),
        (Stated(sets={"": "x.txt"}), "--set"),
        (Stated(tasks={"ü": "quiz.yaml"}), "--task"),
        (Stated("quiz.jsonl/../bad.yaml"), "--evaluation"),
    ],
    ids=str,
)
def test_what_a_command_refuses(stated, where):
    with pytest.raises(ConfigError) as error:
        compose_evaluation(stated)
    assert error.value.problems[0].where == where


def test_a_runs_record_may_name_classes_of_ours_alone():
    base = {"every_steps": None, "sets": {}, "whole_sets": [], "batch_size": None, "limit": None, "check_overlap": True}
    base |= {"at_start": False}
    foreign = {"x": {"_target_": "my_task.Task"}}
    with pytest.raises(ConfigError, match="may not be imported"):
        read_recorded({**base, "tasks": foreign}, None, None)
    with pytest.raises(ConfigError, match="may not be imported"):
        type_dataset({"_target_": "my_data.Data"})
    with pytest.raises(ConfigError):
        read_recorded([], None, None)
    assert read_recorded({**base, "tasks": {}}, 7, None).limit == 7
    assert isinstance(Typing().section("evaluation", {**base, "tasks": {}}, []).sets, dict)
