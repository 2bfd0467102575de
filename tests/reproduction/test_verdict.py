"""Bit-identical, within tolerance, or different."""

import pytest
from recorded_runs import ROWS, make_recorded, row

from llama_exp.reproduction.verdict import Ending, judge
from llama_exp.results import load_run
from llama_exp.results.outcome import compare_outcomes


@pytest.fixture
def ended(tmp_path):
    def judged(rows, before=ROWS, **summary):
        weights = {"weights": {"trained": "w"}}
        one = load_run(make_recorded(tmp_path / "one", rows=before, **weights))
        other = load_run(make_recorded(tmp_path / "other", rows=rows, **weights | summary))
        return judge(compare_outcomes(one, other), one.values)

    return judged


def replaced(index, **values):
    return [{**entry, **(values if number == index else {})} for number, entry in enumerate(ROWS)]


def test_the_same_is_bit_identical(ended):
    verdict = ended(ROWS)
    assert verdict.ending is Ending.identical and verdict.reasons == ()


def test_a_gap_of_rounding_is_tolerated_and_shown(ended):
    verdict = ended(replaced(3, loss=3.5 * (1 + 1e-6)))
    assert verdict.ending is Ending.tolerated
    assert verdict.reasons[0].startswith("from step 20 on: validation loss 3.5 then")
    assert "largest gap of loss: 0.0001 % at step 20" in verdict.reasons[1]


def test_a_larger_gap_is_different_with_its_first_step(ended):
    verdict = ended([ROWS[0], row(10, 4.01), *ROWS[2:]])
    assert verdict.ending is Ending.different
    assert "step 10: train loss 4 then, 4.01 now, 0.25 % apart; rounding explains 0.0004 % there" in verdict.reasons[0]


def test_other_weights_behind_the_same_rows_are_tolerated_but_told(ended):
    verdict = ended(ROWS, weights={"trained": "v"})
    assert verdict.ending is Ending.tolerated and verdict.reasons == ("the weights at the end are others",)


@pytest.mark.parametrize(
    "rows",
    [
        replaced(1, tokens=81),  # other data
        replaced(1, loss="NaN"),
        [ROWS[0], *ROWS[2:]],
        [*ROWS, row(15, 3.5)],
        [],
    ],
)
def test_what_rounding_cannot_do_is_different(ended, rows):
    verdict = ended(rows)
    assert verdict.ending is Ending.different and verdict.reasons


def test_the_learning_rate_is_the_same_but_for_its_last_bit(ended):
    before = replaced(1, learning_rate=1e-3)
    assert ended(replaced(1, learning_rate=1e-3 * (1 + 1e-7)), before).ending is Ending.tolerated


def test_another_learning_rate_is_different(ended):
    assert ended(replaced(1, learning_rate=1.01e-3), replaced(1, learning_rate=1e-3)).ending is Ending.different


def test_norms_of_gradients_are_shown_and_not_judged(ended):
    verdict = ended(replaced(1, grad_norm=2.0), replaced(1, grad_norm=1.0))
    assert verdict.ending is Ending.tolerated and any("grad_norm: 50 %" in reason for reason in verdict.reasons)


def test_a_loss_near_nothing_is_judged_as_if_it_were_larger(ended):
    before = [row(0, 1e-9, "validation")]
    assert ended([row(0, 2e-9, "validation")], before).ending is Ending.tolerated
