"""Tasks on files: what an item becomes, what is right, and what every kind of wrong file gets."""

import json

import pytest
from evaluation_doubles import Examinee

from llama_exp.errors import InputError
from llama_exp.evaluation import Generation, MultipleChoice
from llama_exp.evaluation.generation import exact_match, f1
from llama_exp.evaluation.outcome import mean_and_error
from llama_exp.evaluation.tasks import OpenTask
from llama_exp.limits import ImpossibleValue

SOLVED = {"examples_file": None, "num_examples": 0}


def written(path, *records):
    lines = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    path.write_bytes(b"\n".join(lines))
    return str(path)


def multiple_choice(file, **changes):
    keys = {"prompt": "Q: {question}", "choices": "choices", "answer": "answer", "separator": " ", **SOLVED}
    return MultipleChoice(file=file, **{**keys, **changes})


def generation(file, **changes):
    keys = {"prompt": "{q}", "targets": "a", "max_new_tokens": 4, "stop_texts": ["\n"], "separator": " ", **SOLVED}
    return Generation(file=file, **{**keys, **changes})


ITEM = {"question": "Ü?", "choices": ["ja", "nein, niemals"], "answer": 0}


def test_the_right_choice_is_the_likeliest_and_bytes_normalize(tmp_path):
    task = multiple_choice(written(tmp_path / "a.jsonl", ITEM, {**ITEM, "answer": "nein, niemals"}))
    # The second choice is less likely, and more likely by its 13 bytes.
    examinee = Examinee({("Q: Ü?", " ja"): -2.0, ("Q: Ü?", " nein, niemals"): -4.0})
    results = task.evaluate(task.items(), examinee)
    assert [(row["accuracy"], row["normalized_accuracy"]) for row in results] == [(1, 0), (0, 1)]
    assert results[0]["log_likelihoods"] == [-2.0, -4.0] and results[1]["answer"] == 1


def test_bytes_are_counted_not_characters(tmp_path):
    task = multiple_choice(written(tmp_path / "a.jsonl", {**ITEM, "choices": ["äöü", "abcd"], "answer": 0}))
    examinee = Examinee({("Q: Ü?", " äöü"): -6.0, ("Q: Ü?", " abcd"): -5.0})
    (row,) = task.evaluate(task.items(), examinee)
    assert row["normalized_accuracy"] == 1  # -6/6 > -5/4, and by characters -6/3 < -5/4


def test_templates_take_texts_and_numbers_and_nothing_else(tmp_path):
    record = {"a.b": "x", "n": 3, "list": [1], "{": 0}
    file = written(tmp_path / "a.jsonl", record)
    task = multiple_choice(file, prompt="{{{a.b}}} {n}", choices=["{n}", "no"], answer="n0")
    with pytest.raises(InputError, match="no key 'n0'"):
        task.items()
    assert multiple_choice(file, prompt="{{{a.b}}} {n}", choices=["{n}", "no"], answer="{").items() == [
        {"prompt": "{x} 3", "separator": " ", "choices": ["3", "no"], "answer": 0}
    ]
    with pytest.raises(InputError, match="neither text nor number"):
        multiple_choice(file, prompt="{list}", choices=["a", "b"], answer="n").items()


@pytest.mark.parametrize("prompt", ["{", "{}", "{a!r}", "{a:>9}", "}", "{ }"])
def test_impossible_templates(prompt):
    with pytest.raises(ImpossibleValue, match="is no template"):
        multiple_choice("any", prompt=prompt)


@pytest.mark.parametrize(
    "changes",
    [{"choices": ["one"]}, {"choices": 3}, {"num_examples": 1}, {"examples_file": "x"}, {"num_examples": -1}]
    + [{"examples_file": "any", "num_examples": 1}],
    ids=str,
)
def test_impossible_keys(changes):
    with pytest.raises(ImpossibleValue):
        multiple_choice("any", **changes)


def test_solved_items_stand_in_front(tmp_path):
    solved = written(tmp_path / "solved.jsonl", ITEM, {**ITEM, "question": "2", "answer": 1})
    file = written(tmp_path / "a.jsonl", {**ITEM, "question": "3"})
    (item,) = multiple_choice(file, examples_file=solved, num_examples=2).items()
    assert item["prompt"] == "Q: Ü? ja\n\nQ: 2 nein, niemals\n\nQ: 3"
    with pytest.raises(InputError, match="too few solved items"):
        multiple_choice(file, examples_file=solved, num_examples=3).items()


@pytest.mark.parametrize(
    ("records", "where", "message"),
    [
        ([], "a.jsonl", "has no items"),
        ([b"  ", b""], "a.jsonl", "has no items"),
        ([ITEM, {"choices": ["a", "b"], "answer": 0}], "a.jsonl:2", "no key 'question'"),
        ([{**ITEM, "answer": 2}], "a.jsonl:1", "none of the choices"),
        ([{**ITEM, "answer": -1}], "a.jsonl:1", "none of the choices"),
        ([{**ITEM, "answer": True}], "a.jsonl:1", "none of the choices"),
        ([{**ITEM, "answer": "vielleicht"}], "a.jsonl:1", "none of the choices"),
        ([{**ITEM, "answer": None}], "a.jsonl:1", "none of the choices"),
        ([{**ITEM, "choices": ["a", "a"], "answer": "a"}], "a.jsonl:1", "two of the choices"),
        ([{**ITEM, "choices": ["ja"]}], "a.jsonl:1", "leaves no choice"),
        ([{**ITEM, "choices": ["ja", ""]}], "a.jsonl:1", "a choice is empty"),
        ([{**ITEM, "choices": "ja"}], "a.jsonl:1", "no list of texts"),
        ([{**ITEM, "choices": ["ja", None]}], "a.jsonl:1", "no list of texts"),
        ([b'{"question": "a", "choices": ["x", "y"], "answer": NaN}'], "a.jsonl:1", "not valid JSON"),
        ([b'{"question": "\\ud800", "choices": ["x", "y"], "answer": 0}'], "a.jsonl:1", "not valid JSON"),
        ([b'{"question": "\xff"}'], "a.jsonl:1", "not UTF-8"),
        ([b"[1, 2]"], "a.jsonl:1", "does not hold a JSON object"),
        ([json.dumps(ITEM).encode()[:20]], "a.jsonl:1", "not valid JSON"),
        ([b'{"question": "' + b"a" * (1 << 24) + b'"}'], "a.jsonl:1", "too long for an item"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_files(tmp_path, records, where, message):
    file = written(tmp_path / "a.jsonl", *records)
    with pytest.raises(InputError, match=message) as error:
        multiple_choice(file).items()
    (problem,) = error.value.problems
    assert problem.where.endswith(where)


def test_a_byte_order_mark_and_blank_lines_are_no_harm(tmp_path):
    file = written(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + json.dumps(ITEM).encode(), b"", ITEM)
    assert len(multiple_choice(file).items()) == 2


def test_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError):
            multiple_choice(str(path)).items()


def test_a_text_is_compared_with_its_best_target(tmp_path):
    task = generation(written(tmp_path / "a.jsonl", {"q": "1", "a": "The cat!"}, {"q": "2", "a": ["no", "a dog runs"]}))
    results = task.evaluate(task.items(), Examinee(texts={"1": " cat", "2": "dog sits"}))
    assert [(row["exact_match"], row["f1"]) for row in results] == [(1, 1), (0, 0.5)]
    with pytest.raises(InputError, match="has no target"):
        generation(written(tmp_path / "b.jsonl", {"q": "1", "a": []})).items()


@pytest.mark.parametrize(
    ("text", "target", "exact", "score"),
    # Worked out by hand after SQuAD's script: lower case, no punctuation, no articles, words counted with repetition.
    [
        ("The Cat.", "cat", 1, 1),
        ("a b b", "b b c", 0, 2 * (2 / 2) * (2 / 3) / (1 + 2 / 3)),
        ("", "", 1, 1),
        ("the", "an", 1, 1),
        ("", "x", 0, 0),
        ("Ünïcode 你好", "ünïcode 你好!", 1, 1),
    ],
)
def test_exact_match_and_f1(text, target, exact, score):
    assert exact_match(text, target) == exact
    assert f1(text, target) == pytest.approx(score)


class Own:
    """A task of somebody's own, as little as it can be."""

    def __init__(self, results):
        self.results = results

    def items(self):
        return [{"n": n} for n in range(3)]

    def evaluate(self, items, examinee):
        return self.results[: len(items)] if self.results is not None else [{"ok": item["n"]} for item in items]


def test_an_own_tasks_numbers_are_its_figures():
    task = OpenTask("mine", Own([{"ok": 1, "text": "x"}, {"ok": 0, "text": "y"}, {"ok": 1, "text": ""}]), {}, "", None)
    outcome = task.run(Examinee(), lambda count: None)
    assert outcome.figures == pytest.approx({"ok": 2 / 3, "ok_error": 1 / 3})
    assert task.kind == "Own" and task.size == 3


@pytest.mark.parametrize("results", [[{"ok": 1}], [{"ok": 1}, {"ok": 1}, {"no": 1}], ["a", "b", "c"], [{}, {}, {}]])
def test_an_own_task_that_gives_something_else(results):
    with pytest.raises(InputError, match="evaluation.tasks.mine"):
        OpenTask("mine", Own(results), {}, "", None).run(Examinee(), lambda count: None)


def test_the_fingerprint_is_of_items_and_keys_but_not_of_names_of_files():
    def fingerprint(limit=None, **node):
        return OpenTask("mine", Own(None), {"_target_": "x.Y", "k": 1, **node}, "", limit).fingerprint()

    assert fingerprint() == fingerprint(file="elsewhere.jsonl")
    assert len({fingerprint(), fingerprint(k=2), fingerprint(limit=2)}) == 3


def test_mean_and_standard_error():
    assert mean_and_error([1.0]) == (1.0, None)
    mean, error = mean_and_error([1, 0, 1, 1])
    assert (mean, error) == pytest.approx((0.75, 0.25))  # sqrt(0.75 * 0.25 / 3)
