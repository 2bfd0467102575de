"""Questions about the standard library: fair ones, the same each time, of objects that python_qa does not train on."""

import pytest

from llama_exp.dataset.records import pair
from llama_exp.evaluation import PythonChoices
from llama_exp.limits import ImpossibleValue


class Documents:
    """What the data set python_qa gives, made up: a third of 300 objects validates, some answers say the name."""

    def documents(self):
        for number in range(300):
            answer = f" It is used by name{number}." if number % 10 == 0 else f" Does thing {number % 250}."
            record = pair(f"module.name{number}", f"Question: What is `module.name{number}`?\nAnswer:", answer)
            yield ("train", "train", "validation")[number % 3], record


@pytest.fixture
def items():
    task = PythonChoices(num_choices=4, validation_fraction=0.05)
    task._dataset = Documents()
    found = task.items()
    assert found == task.items()
    return found


def test_items_are_of_the_validation_split_and_do_not_give_the_answer_away(items):
    asked = {int(item["prompt"].partition("name")[2].partition("`")[0]) for item in items}
    assert asked <= {number for number in range(300) if number % 3 == 2 and number % 10}
    assert len(asked) == len(items) > 70
    for item in items:
        name = item["prompt"].partition("module.")[2].partition("`")[0]
        assert name not in item["choices"][item["answer"]]


def test_choices_differ_and_no_place_is_preferred(items):
    assert {len(set(item["choices"])) for item in items} == {4}
    counts = [sum(item["answer"] == place for item in items) for place in range(4)]
    assert min(counts) > len(items) / 8
    answers = [item["choices"][item["answer"]] for item in items]
    assert len(set(answers)) == len(answers)


@pytest.mark.parametrize("changes", [{"num_choices": 1}, {"validation_fraction": 1.0}], ids=str)
def test_impossible_values(changes):
    with pytest.raises(ImpossibleValue):
        PythonChoices(**{"num_choices": 4, "validation_fraction": 0.05, **changes})
