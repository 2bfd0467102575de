"""A callback that makes a run of a tiny model last, so that it can be stopped on its way."""

import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WHERE = f"{HERE.parent}:{HERE}"  # PYTHONPATH of such a run


class Slow:
    """Sleeps after every step."""

    def __init__(self, seconds):
        self.seconds = seconds

    def on_step(self, step, loss, tokens):
        """See docs/how_to/own_callback.md."""
        time.sleep(self.seconds)


def slowly(seconds):
    """The overrides of a run whose steps take so long."""
    return [
        "trusted_modules=[slow_steps]",
        f"trainer.callbacks={{slow: {{_target_: slow_steps.Slow, seconds: {seconds}}}}}",
    ]
