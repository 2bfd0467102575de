"""Which types variables and computation may have."""

from __future__ import annotations

import enum


class Policy(enum.Enum):
    """A Keras dtype policy; `llama_exp.precision` says what each means."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"
