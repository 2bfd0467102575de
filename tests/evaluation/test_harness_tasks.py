"""Tasks of lm-evaluation-harness as one evaluation: found offline, asked of a stand-in, named in our words."""

import json

import harness_oracle as oracle
import pytest
import yaml
from small_models import TOKENIZER

from llama_exp.errors import InputError
from llama_exp.evaluation.harness import Harness, OpenHarness

pytest.importorskip("lm_eval", reason="needs the extra eval")
pytestmark = pytest.mark.harness

ITEMS = [{"question": f"question {number}:", "choices": ["right", "wrong"], "answer": 0} for number in range(4)]
DEFAULTS = {
    "num_fewshot": None,
    "apply_chat_template": False,
    "system_instruction": None,
    "max_length": None,
    "online": False,
}


class Examinee:
    """Finds the shortest continuation the likeliest; writes one text for all."""

    batch_size, tokens, watch, num_items, context_length = 2, 0, None, 1, None
    tokenizer = TOKENIZER

    def __init__(self, text="yes. no"):
        self.model, self._text, self.asked, self.told = self, text, [], []

    def score_ids(self, pairs):
        self.asked += pairs
        self.told.append(self.num_items)
        return [(-float(sum(continuation)), False) for _, continuation in pairs]

    def generate(self, prompts, on_tokens, **options):
        import numpy as np

        self.asked += [(prompt.tolist(), options) for prompt in prompts]
        for token in TOKENIZER.encode(self._text):
            on_tokens(np.full((1, len(prompts)), token))

    def tell(self, count, total):
        self.told.append((count, total))


def opened(folder, *tasks, limit=None, **changes):
    keys = {"tasks": list(tasks), "include_path": str(folder), **DEFAULTS, **changes}
    return OpenHarness("name", Harness(**keys), keys, limit)


def run(folder, *tasks, examinee=None, **options):
    return opened(folder, *tasks, **options).run(examinee or Examinee(), lambda count: None)


def problem_of(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    (problem,) = caught.value.problems
    return problem


def test_one_task_gives_its_figures_and_items(tmp_path):
    oracle.write_task(tmp_path, "quiz", ITEMS)
    task, examinee = opened(tmp_path, "quiz", limit=3), Examinee()
    outcome = task.run(examinee, lambda count: None)
    assert task.size == len(outcome.results) == 3
    assert outcome.figures == {"acc": 1.0, "acc_error": 0.0, "acc_norm": 1.0, "acc_norm_error": 0.0}
    first = outcome.results[0]
    assert (first["task"], first["item"], first["acc"], first["question"]) == ("quiz", 0, 1.0, ITEMS[0])
    assert json.dumps(outcome.results)
    assert examinee.told == [3]
    assert examinee.watch is None
    assert task.run(Examinee(), lambda count: None).results == outcome.results


def test_several_tasks_and_groups_are_told_apart(tmp_path):
    oracle.write_task(tmp_path, "one", ITEMS)
    oracle.write_task(tmp_path, "two", ITEMS[:2])
    assert run(tmp_path, "one", "two").figures["acc,two"] == 1.0
    group = {"group": "both", "task": ["one", "two"], "aggregate_metric_list": [{"metric": "acc"}]}
    (tmp_path / "group.yaml").write_text(yaml.safe_dump(group))
    figures = run(tmp_path, "both").figures
    assert {"acc", "acc_error", "acc,one", "acc_norm,two", "acc,two_error"} <= figures.keys()


def test_texts_are_cut_at_stop_sequences_and_filters_are_named(tmp_path):
    filters = [
        {"name": "loose", "filter": [{"function": "take_first"}]},
        {"name": "strict", "filter": [{"function": "regex", "regex_pattern": "(no)"}, {"function": "take_first"}]},
    ]
    items = [{"question": "?" * (1 + number), "answer": "yes"} for number in range(3)]
    oracle.write_generation_task(tmp_path, "say", items, ["."], 6, filter_list=filters)
    outcome = run(tmp_path, "say")
    assert outcome.figures["exact_match,loose"] == 1.0
    assert outcome.figures["exact_match,strict"] == 0.0
    assert len(outcome.results) == 3
    assert outcome.results[0]["answers,loose"] == ["yes"]


def test_the_fingerprint_is_of_what_is_asked_not_of_where_it_lies(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        oracle.write_task(tmp_path / name, "quiz", ITEMS)
    here, there = (opened(tmp_path / name, "quiz").fingerprint() for name in ("here", "there"))
    assert here == there == opened(tmp_path / "here", "quiz", online=True).fingerprint()
    assert here != opened(tmp_path / "here", "quiz", limit=3).fingerprint()
    assert here != opened(tmp_path / "here", "quiz", num_fewshot=1).fingerprint()
    oracle.write_task(tmp_path / "here", "quiz", ITEMS, target_delimiter="")
    assert here != opened(tmp_path / "here", "quiz").fingerprint()


def test_texts_for_the_overlap_are_questions_with_their_right_answers(tmp_path):
    oracle.write_task(tmp_path, "quiz", ITEMS, fewshot_split="test", num_fewshot=2)
    assert opened(tmp_path, "quiz").texts()[1] == "question 1:\nright"


def test_conversations_are_written_by_the_models_template(tmp_path):
    oracle.write_task(tmp_path, "quiz", ITEMS[:1])
    examinee = Examinee()
    run(tmp_path, "quiz", examinee=examinee, apply_chat_template=True, system_instruction="Be brief.")
    context = TOKENIZER.decode(examinee.asked[0][0], skip_special_tokens=False)
    assert context == "<|begin_of_text|>system: Be brief.<|eot_id|>user: question 0:<|eot_id|>assistant:"


def test_what_is_missing_is_named(tmp_path):
    oracle.write_task(tmp_path, "quiz", ITEMS)
    (tmp_path / "broken.yaml").write_text("task: [")
    problem = problem_of(opened, tmp_path, "quizz")
    assert problem.where == "task quizz"
    assert "did you mean quiz" in problem.action
    assert "broken.yaml" in problem.found
    problem = problem_of(opened, tmp_path / "none", "quiz")
    assert (problem.what, problem.found) == ("there are no tasks here", "no such folder")
    (tmp_path / "quiz.jsonl").unlink()
    problem = problem_of(opened, tmp_path, "quiz")
    assert problem.what == "a file of it is not there"
    assert "quiz.jsonl" in problem.found


def test_data_that_are_not_here_are_named_and_no_server_is_asked(tmp_path):
    content = {
        "task": "far",
        "dataset_path": "somebody/no_such_data",
        "test_split": "test",
        "output_type": "multiple_choice",
    }
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(content))
    problem = problem_of(opened, tmp_path, "far")
    assert problem.where == "task far"
    assert "somebody/no_such_data" in problem.found
    assert "--online" in problem.action


def test_a_template_that_does_not_fit_the_data_is_told(tmp_path):
    oracle.write_task(tmp_path, "quiz", ITEMS, doc_to_text="{{nothing}}")
    assert "nothing" in problem_of(opened, tmp_path, "quiz").found


@pytest.mark.parametrize(
    ("kwargs", "where", "what"),
    [
        ({"num_beams": 4}, "generation_kwargs.num_beams", "not supported"),
        ({"max_gen_toks": 64}, "generation_kwargs", "the new tokens leave no room for a context"),
    ],
)
def test_what_cannot_be_written_is_told(tmp_path, kwargs, where, what):
    kwargs = {"until": ["."], "max_gen_toks": 4, "do_sample": False} | kwargs
    oracle.write_generation_task(tmp_path, "say", [{"question": "?", "answer": "!"}], ["."], 4)
    content = yaml.safe_load((tmp_path / "say.yaml").read_text()) | {"generation_kwargs": kwargs}
    (tmp_path / "say.yaml").write_text(yaml.safe_dump(content))
    problem = problem_of(run, tmp_path, "say", max_length=64)
    assert (problem.where, problem.what) == (where, what)


def test_a_continuation_without_text_or_longer_than_the_model_is_told(tmp_path):
    oracle.write_task(tmp_path, "quiz", [ITEMS[0] | {"choices": ["long " * 30, "b"]}])
    assert problem_of(run, tmp_path, "quiz", max_length=32).what == "a continuation cannot be scored"
    oracle.write_task(
        tmp_path, "empty", [ITEMS[0] | {"choices": ["a", "b"]}], doc_to_choice="{{['', 'b']}}", target_delimiter=""
    )
    assert problem_of(run, tmp_path, "empty").what in ("an empty continuation cannot be scored", "it cannot be loaded")
