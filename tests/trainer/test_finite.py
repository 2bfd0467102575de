"""What ends a run at a number that is not finite, and what float16 lives with."""

import numpy as np
import pytest

from llama_exp.errors import NumericalError
from llama_exp.trainer.finite import require_finite_validation, require_mere_overflow
from llama_exp.trainer.step import StepResult

pytestmark = pytest.mark.neutral

ROWS = np.arange(10)


def step(loss=1.0, loss_scale=2.0):
    return StepResult(loss=loss, grad_norm=float("inf"), learning_rate=0.1, loss_scale=loss_scale, applied=False)


def test_float16_overflow_at_the_smallest_scale_stops():
    require_mere_overflow(step(), 7, ROWS, None)
    with pytest.raises(NumericalError, match="loss scale 1, rows 0, 1, 2, 3, 4, 5, 6, 7, ... .10.; .*none") as error:
        require_mere_overflow(step(loss_scale=1.0), 7, ROWS, None)
    assert error.value.exit_code == 5 and "step 7" in str(error.value)


def test_a_loss_that_is_not_finite_is_no_mere_overflow():
    with pytest.raises(NumericalError, match="rows 0, 1; last good checkpoint: step 4"):
        require_mere_overflow(step(loss=float("nan"), loss_scale=1024.0), 7, ROWS[:2], 4)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_validation_loss_must_be_finite(loss):
    require_finite_validation(3.0, 7, None)
    with pytest.raises(NumericalError, match="step 7: (nan|inf); last good checkpoint: step 4"):
        require_finite_validation(loss, 7, 4)
