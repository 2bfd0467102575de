"""Which types variables and computation may have."""

from __future__ import annotations

import enum


class Policy(enum.Enum):
    """A Keras dtype policy; `llama_exp.precision` says what each means."""

    float32 = "float32"  # the reference
    bfloat16 = "bfloat16"  # half the memory; for frozen weights and inference
    mixed_bfloat16 = "mixed_bfloat16"  # float32 variables, bfloat16 products: speed, without losing small updates
    mixed_float16 = "mixed_float16"  # float32 variables, float16 products, a loss scale; for older accelerators
