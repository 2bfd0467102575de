"""KerasHub's contract: every row of the table is what comes out when it runs on KerasHub's Llama and on ours."""

import re

import keras_hub_contract as contract
import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # KerasHub's own calls warn of much
PAGE = contract.PAGE.read_text()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return contract.libraries(tmp_path_factory.mktemp("contract") / "preset")


@pytest.mark.parametrize("row", contract.CONTRACT, ids=lambda row: row.check.__name__)
def test_the_table_says_what_comes_out(both, row):
    found = contract.outcome(row, both)
    assert found != "neither"
    assert contract.render_row(row, found) in PAGE.splitlines(), "run python tests/renew_contract.py"


def test_the_page_is_made_of_the_rows():
    outcomes = re.findall(r"\| (same|better|refused) \|", PAGE)
    assert contract.render(outcomes) == PAGE
    assert all(row.note for row, found in zip(contract.CONTRACT, outcomes, strict=True) if found == "refused")
