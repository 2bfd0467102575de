"""How far rounding alone drives two runs apart.

Sums that are split otherwise round otherwise, by one part in ten million (float32). Training feeds that back: the gap
grows with the steps, until it is as large as the noise of a row. Measured on the default config, losses relative to
each other, the largest of train and validation rows up to the last step (docs/adr/0032):

    step                          10       25       65      105      200            1200
    JAX, 1 or 2 threads            0        0    3e-05    2e-03    3e-03   27e-03, 4e-03
    TensorFlow or JAX              0    9e-08    1e-04    4e-03   13e-03, 11e-03
    the same in bfloat16       1e-05    7e-05    1e-02    4e-03   10e-03, 1e-03
    a rate 1 % higher          5e-04    8e-06    2e-03    2e-03    7e-03
    another seed               9e-03    1e-02    3e-02    2e-03   36e-03, 15e-03

So early rows tell another computation from another rounding, and late ones hardly do: the limit begins near rounding,
doubles every five steps, and ends at twice the largest gap that was seen.
"""

from __future__ import annotations

FIRST = 1e-6  # at step 0, for products of float32
FIRST_OF_SHORT_TYPES = 1e-4  # bfloat16, float16, integers, float8
DOUBLED_EVERY_STEPS = 5
LARGEST_OF_BATCHES = 0.05  # of train rows, the loss of a single batch
LARGEST = 0.02  # of validation, a mean over many
SMALLEST_LOSS = 0.1  # nats: below it a gap counts as if the loss were as large
# The rate is computed in float32, from the step alone.
OF_LEARNING_RATE = 1e-6


def tolerated_gap(step: int, split: str, policy: str, is_quantized: bool) -> float:
    """The largest gap between two losses, relative to the larger one, that rounding explains.

    Args:
        step: of the row.
        split: train, or another one.
        policy: `precision.policy`.
        is_quantized: whether products are of small integers or float8.
    """
    first = FIRST if policy == "float32" and not is_quantized else FIRST_OF_SHORT_TYPES
    doublings = min(step / DOUBLED_EVERY_STEPS, 64.0)  # far behind the largest; 2 ** 10000 is no float
    return min(LARGEST_OF_BATCHES if split == "train" else LARGEST, first * 2**doublings)
