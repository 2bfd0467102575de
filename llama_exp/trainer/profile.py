"""A profile of some steps, for TensorBoard's profile plug-in: where the time of a step goes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from llama_exp import backend
from llama_exp.files.shown_path import show_path

WARM_UP = 2  # steps of a process that compile, or fill caches, and are not profiled
_log = logging.getLogger(__name__)


class Profile:
    """Records the steps behind the first two of a process.

    Args:
        folder: where to, `plugins/profile/<time>/` is made in it; None: nothing is recorded.
        num_steps: how many; 0: none.
    """

    def __init__(self, folder: Path | None, num_steps: int):
        self._folder, self._num_steps = folder, num_steps if folder is not None else 0
        self._seen = 0
        self._is_open = False

    @contextlib.contextmanager
    def of_step(self) -> Iterator[None]:
        """Around a step."""
        if self._folder is not None and self._seen == WARM_UP and self._num_steps > 0:
            backend.start_profile(self._folder)
            self._is_open = True
        yield
        self._seen += 1
        if self._seen == WARM_UP + self._num_steps:
            self.close()

    def close(self) -> None:
        """Writes what was recorded, also where the run ended before all of its steps were seen."""
        if self._folder is not None and self._is_open:
            self._is_open = False
            backend.stop_profile()
            text = "profile of %d steps in %s; look at it with: tensorboard --logdir %s (pip install %s)"
            shown = show_path(self._folder)
            _log.info(text, self._seen - WARM_UP, shown, shown, "tensorboard-plugin-profile")
        elif self._num_steps > 0 and self._seen <= WARM_UP:
            _log.warning("no step was profiled: trainer.profile_steps begins after step %d of a start", WARM_UP)


NO_PROFILE = Profile(None, 0)
