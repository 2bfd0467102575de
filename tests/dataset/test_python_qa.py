"""Questions and answers about the standard library."""

import pytest

from llama_exp.dataset import PythonQA, python_qa, stdlib
from llama_exp.dataset.stdlib import Documented

OPTIONS = {"sequence_length": 64, "packing": "best_fit", "overlong": "truncate", "validation_fraction": 0.3}


def answers(kind, docstring, signature="", parameters=()):
    return [answer for _, answer in python_qa._pairs(Documented(kind, "m.x", signature, parameters, docstring))]


def test_pairs_of_a_function():
    docstring = "Wrap text in lines\nof some width\n\nMore details."
    item = Documented("function", "m.wrap", "(text, width=70)", (("text", ""), ("width", "70")), docstring)
    (purpose, first), (call, second), (parameters, third) = python_qa._pairs(item)
    assert first == "Wrap text in lines of some width."
    assert second == "Call it as `m.wrap(text, width=70)`."
    assert third == "`m.wrap` takes 2 parameters: `text` and `width` (default `70`)."
    for question in (purpose, call, parameters):
        assert "m.wrap" in question and question[-1] in "?."


def test_long_and_unknown_signatures_are_not_made_up():
    for signature in ("", f"({'a' * 200})"):
        item = Documented("function", "m.x", signature, (), "Return the ``sum`` of two things.")
        ((question, answer),) = python_qa._pairs(item)
        assert "`m.x`" in question
        assert answer == "Return the `sum` of two things."


def test_one_parameter_and_none():
    assert (
        answers("method", "Do this first and then that.", "(a)", (("a", ""),))[2] == "`m.x` takes one parameter: `a`."
    )
    assert len(answers("method", "Do this first and then that.", "()")) == 2
    assert answers("module", "Some tools for this and that.") == ["Some tools for this and that."]


@pytest.mark.parametrize(
    "docstring",
    [
        "Short.",
        "lower case starts are seldom sentences",
        "S.find(sub[, start[, end]]) -> int and then some more",
        "Usage of it is as follows:",
        "Heading of a section\n====================",
        "Example of its use\n>>> wrap('a')",
        "A very long answer " * 40,
    ],
)
def test_what_reads_badly_is_no_answer(docstring):
    assert answers("function", docstring, "(a)", (("a", ""),)) == []


def test_each_kind_has_forms_of_its_own_and_the_name_chooses():
    found = {
        next(iter(python_qa._pairs(Documented("function", f"m.f{n}", "()", (), "Return the sum of two things."))))[
            0
        ].replace(f"m.f{n}", "NAME")
        for n in range(60)
    }
    assert len(found) == len(python_qa._PURPOSE_QUESTIONS["function"])


def test_one_objects_pairs_fall_on_one_side_and_only_answers_count(tmp_path, monkeypatch):
    items = [
        Documented("function", f"m.f{n}", "(a)", (("a", ""),), f"Return the number {n} as it is.") for n in range(40)
    ]
    items += [Documented("function", "m._private", "(a)", (("a", ""),), "Return nothing that is public.")]
    monkeypatch.setattr(stdlib, "find_documented", lambda: iter(items))
    monkeypatch.setattr(stdlib, "digest", lambda: "d")
    dataset = PythonQA(**OPTIONS)
    dataset.open(tmp_path)
    sides = {}
    for split, record in dataset.documents():
        sides.setdefault(record.source, []).append(split)
        _, prompt, completion, _ = record.pieces
        assert (prompt.counts, completion.counts) == (False, True)
        assert prompt.text.startswith("Question: ") and prompt.text.endswith("\nAnswer:")
        assert completion.text.startswith(" ")
    assert len(sides) == 40
    assert all(len(splits) == 3 and len(set(splits)) == 1 for splits in sides.values())
    assert {splits[0] for splits in sides.values()} == {"train", "validation"}


def test_the_real_questions_are_many_and_distinct():
    pairs = [pair for item in stdlib.find_documented() for pair in python_qa._pairs(item)]
    assert len(pairs) > 5000
    assert any("`str.split" in question for question, _ in pairs)
    assert all(answer == answer.strip() and "\n" not in answer for _, answer in pairs)
