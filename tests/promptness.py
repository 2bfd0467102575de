"""How long something takes by itself, on a busy machine and late in a long process."""

import gc
import time
from contextlib import contextmanager


@contextmanager
def within(seconds):
    """Fails if its block takes longer than `seconds` of this thread's own time.

    Waiting for a processor that others use does not count, and neither does looking through the many objects that
    earlier tests left behind, which each full garbage collection would do.
    """
    gc.freeze()
    started = time.thread_time()
    try:
        yield
        taken = time.thread_time() - started
    finally:
        gc.unfreeze()
    assert taken < seconds
