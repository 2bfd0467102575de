"""How much of the data a run uses, counted from its rows and remembered for plans."""

import pytest

from llama_exp.config.check import check_arguments
from llama_exp.console.data_line import data_line
from llama_exp.errors import InputError
from llama_exp.run import data_use


class Rows:
    facts = {"rows": 50, "tokens": 900, "target_tokens": 800, "source_tokens": 1800, "source_target_tokens": 1600}


@pytest.fixture
def compose(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMA_EXP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "book.txt").write_text("text")

    def compose(*arguments):
        return check_arguments(["dataset=text_files", "dataset.files=book.txt", *arguments]).config

    return compose


def test_what_is_measured_is_recalled_with_the_steps_of_the_asking_run(compose):
    config = compose("trainer.max_steps=5", "trainer.batch_size=4", "trainer.accumulation_steps=2")
    assert data_use.recall(config) is None
    assert data_use.measure(config, Rows)["epochs"] == 5 * 4 * 2 / 50
    again = data_use.recall(compose("trainer.max_steps=50", "trainer.batch_size=4"))
    assert again == Rows.facts | {"epochs": 4.0}


@pytest.mark.parametrize("other", ["dataset.sequence_length=64", "tokenizer=byte", "objective.loss_on=all"])
def test_other_rows_are_not_recalled(compose, other):
    data_use.measure(compose(), Rows)
    assert data_use.recall(compose()) is not None
    assert data_use.recall(compose(other)) is None


def test_a_changed_or_missing_file_is_noticed(compose, tmp_path):
    data_use.measure(compose(), Rows)
    (tmp_path / "book.txt").write_text("another text")
    assert data_use.recall(compose()) is None
    (tmp_path / "book.txt").unlink()
    with pytest.raises(InputError, match="no file of this name"):
        data_use.recall(compose())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"epochs": 0.25}, "800 of 1,600 target tokens (50.0%) in 50 rows; the steps see 25.0% of them"),
        ({"epochs": 2.04, "rows": 7}, "800 of 1,600 target tokens (50.0%) in 7 rows; the steps see each 2.0 times"),
        (
            {"epochs": 1, "source_target_tokens": 800},
            "800 of 800 target tokens (all) in 50 rows; the steps see each 1.0 times",
        ),
    ],
)
def test_the_line(change, line):
    assert data_line(Rows.facts | change) == line
