"""What the harness finds while it works: the network shut or open, fixed seeds, quiet bars, its warnings in our log."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

# The seeds of the harness' own `simple_evaluate`, so that few-shot examples are the same.
RANDOM_SEED = 0
NUMPY_SEED = FEW_SHOT_SEED = 1234

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def surroundings(online: bool) -> Iterator[None]:
    """Holds while lm_eval is imported, loads tasks and evaluates them; all is as before afterwards.

    Args:
        online: whether data may be downloaded; otherwise only what is on this machine is found.
    """
    with contextlib.ExitStack() as stack:
        if not online:
            stack.enter_context(_offline())
        # Its bootstrap would fork this process, whose backend has threads.
        stack.enter_context(_environment(DISABLE_MULTIPROC="1"))
        stack.enter_context(_seeded())
        stack.enter_context(_warnings_in_our_log())
        without_bars: Any = _WithoutBars(sys.stderr)
        stack.enter_context(contextlib.redirect_stderr(without_bars))
        stack.enter_context(contextlib.redirect_stdout(without_bars))
        yield


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The variables for who is imported from now on, and the values for who has read them already."""
    with _environment(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1"):
        import datasets
        from huggingface_hub import constants

        places: list[Any] = [constants, datasets.config]
        before = [place.HF_HUB_OFFLINE for place in places]
        try:
            for place in places:
                place.HF_HUB_OFFLINE = True
            yield
        finally:
            for place, value in zip(places, before, strict=True):
                place.HF_HUB_OFFLINE = value


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(RANDOM_SEED)
    np.random.seed(NUMPY_SEED)
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


@contextlib.contextmanager
def _warnings_in_our_log() -> Iterator[None]:
    theirs, handler = logging.getLogger("lm_eval"), _Forward(logging.WARNING)
    propagates = theirs.propagate
    theirs.addHandler(handler)
    theirs.propagate = False
    try:
        yield
    finally:
        theirs.removeHandler(handler)
        theirs.propagate = propagates


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _log.log(record.levelno, "lm-eval: %s", record.getMessage())


class _WithoutBars:
    """A stream without tqdm's bars, which cannot be switched off and would tear our own."""

    def __init__(self, stream: Any):
        self._stream, self._in_bar = stream, False

    def write(self, text: str) -> int:
        is_bar = text.startswith("\r") and not text.startswith("\r\x1b")  # rich moves its cursor so
        if not is_bar and not (self._in_bar and not text.strip()):
            self._stream.write(text)
        self._in_bar = is_bar
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
