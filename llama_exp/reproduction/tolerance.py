"""How far rounding alone drives two runs apart.

Sums that are split otherwise round otherwise, by one part in ten million (float32). Training feeds that back: the gap
grows with the steps, until it is as large as the noise of a row of eight sequences. Measured on the default config (200
steps, losses relative to each other; docs/adr/0032):

    step                    10       25       65      105    200 at most
    JAX, 1 or 2 threads      0        0    3e-05    2e-03      3e-03
    TensorFlow or JAX        0    9e-08    1e-04    4e-03      1e-02
    the same, bfloat16   1e-05    7e-05    1e-02    4e-03      1e-02
    rate 1 % higher      5e-04    8e-06    2e-03    2e-03      7e-03
    another seed         9e-03    1e-02    3e-02    2e-03      4e-02

So early rows tell another computation from another rounding, and late ones hardly do: the limit begins near rounding,
doubles every five steps, and ends at the noise.
"""

from __future__ import annotations

FIRST = 1e-6  # at step 0, for products of float32
FIRST_OF_SHORT_TYPES = 1e-4  # bfloat16, float16, integers, float8
DOUBLED_EVERY_STEPS = 5
LARGEST = 0.03
SMALLEST_LOSS = 0.1  # nats: below it a gap counts as if the loss were as large
# The rate is computed in float32, from the step alone.
OF_LEARNING_RATE = 1e-6


def tolerated_gap(step: int, policy: str, is_quantized: bool) -> float:
    """The largest gap between two losses, relative to the larger one, that rounding explains.

    Args:
        step: of the row.
        policy: `precision.policy`.
        is_quantized: whether products are of small integers or float8.
    """
    first = FIRST if policy == "float32" and not is_quantized else FIRST_OF_SHORT_TYPES
    doublings = min(step / DOUBLED_EVERY_STEPS, 64.0)  # far behind the largest; 2 ** 10000 is no float
    return min(LARGEST, first * 2**doublings)
