"""KerasHub's contract: every row of the table is what comes out when it runs on KerasHub's Llama and on ours."""

import re

import keras_hub_contract as contract
import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # KerasHub's own calls warn of much
PAGE = contract.PAGE.read_text()


# Rows of seconds each, on two libraries; what they ask of ours stands in test_keras_methods.py too.
LONG = {
    "fit",
    "fit_adapters",
    "fit_dataset",
    "fit_sample_weight",
    "fit_unknown_length",
    "fit_without_compile",
    "generate_text",
    "head_by_call",
    "head_from_input",
    "integers_and_adapters_in_a_file",
    "predict_and_evaluate",
    "quantize",
    "quantize_after_predict",
    "task_basics_with_text",
}
ROWS = [
    pytest.param(row, id=row.check.__name__, marks=[pytest.mark.slow] if row.check.__name__ in LONG else [])
    for row in contract.CONTRACT
]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return contract.libraries(tmp_path_factory.mktemp("contract") / "preset")


@pytest.mark.parametrize("row", ROWS)
def test_the_table_says_what_comes_out(both, row):
    found = contract.outcome(row, both)
    assert found != "neither"
    assert contract.render_row(row, found) in PAGE.splitlines(), "run python tests/renew_contract.py"


def test_the_long_rows_are_rows():
    assert {row.check.__name__ for row in contract.CONTRACT} >= LONG


def test_the_page_is_made_of_the_rows():
    outcomes = re.findall(r"\| (same|better|refused) \|", PAGE)
    assert contract.render(outcomes) == PAGE
    assert all(row.note for row, found in zip(contract.CONTRACT, outcomes, strict=True) if found == "refused")
