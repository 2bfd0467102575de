"""Where and how fast a run may compute."""

from __future__ import annotations

import enum

from llama_exp.limits import COUNT_OR_ZERO, FILLED, Limits


class Backend(enum.Enum):
    """The Keras backend of the run."""

    tensorflow = "tensorflow"
    jax = "jax"


class Jit(enum.Enum):
    """Whether steps are compiled with XLA."""

    auto = "auto"  # the faster one for backend and device; the log says which
    true = "true"
    false = "false"


LIMITS = Limits("runtime", {"threads": COUNT_OR_ZERO, "cache_dir": FILLED})
