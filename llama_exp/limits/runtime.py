"""Where and how fast a run may compute."""

from __future__ import annotations

import enum

from llama_exp.limits import FILLED, Limit, Limits, is_whole


class Backend(enum.Enum):
    """The Keras backend of the run."""

    tensorflow = "tensorflow"
    jax = "jax"


class Jit(enum.Enum):
    """Whether steps are compiled with XLA."""

    auto = "auto"  # the faster one for backend and device; the log says which
    true = "true"
    false = "false"


MOST_THREADS = 1024  # more than any machine has cores; frameworks make them all, and end the process where they cannot
THREADS = Limit(lambda value: is_whole(value, 0) and value <= MOST_THREADS, f"an integer from 0 to {MOST_THREADS}")
LIMITS = Limits("runtime", {"threads": THREADS, "cache_dir": FILLED})
