"""Why a preset could not be had, in words, and soon."""

from __future__ import annotations

import os
import threading

from llama_exp.errors import InputError, Problem

# A dropped packet must not cost minutes: a host that has not answered in this time counts as out of reach.
ANSWER_SECONDS = 2.5


def require_answer(source: str, origin: str, url: str) -> None:
    """Fails if the host swallows packets; every other failure is left to the client, which explains it better."""
    import requests

    timed_out = threading.Event()
    answered = threading.Event()

    def ask() -> None:
        try:
            requests.head(url, timeout=ANSWER_SECONDS, allow_redirects=False)
        except requests.Timeout:
            timed_out.set()
        except requests.RequestException:
            pass
        answered.set()

    # A thread, because no timeout covers the name lookup; a daemon, because it may outlive the answer.
    threading.Thread(target=ask, daemon=True).start()
    if not answered.wait(ANSWER_SECONDS) or timed_out.is_set():
        error = TimeoutError(f"no answer within {ANSWER_SECONDS} s from {url}")
        raise InputError(unavailable(source, origin, error)) from error


def unavailable(source: str, origin: str, error: Exception) -> Problem:
    reason = " ".join(str(error).split()) or type(error).__name__
    if len(reason) > 200:
        reason = reason[:200] + "..."
    hugging_face = source.startswith("hf://")
    credentials = "HF_TOKEN" if hugging_face else "KAGGLE_USERNAME and KAGGLE_KEY or ~/.kaggle/kaggle.json"
    variable = "HF_HOME" if hugging_face else "KAGGLEHUB_CACHE"
    cache = os.environ.get(variable) or ("~/.cache/huggingface" if hugging_face else "~/.cache/kagglehub")
    return Problem(
        f"the preset could not be had from {origin}: {type(error).__name__}: {reason}",
        "preset.source",
        source,
        f"one of: (1) a network, credentials ({credentials}) and the model's licence accepted on its page; "
        f"(2) a local copy, preset.source=<folder>; (3) a cache filled elsewhere ({variable}, here {cache}). "
        "Or preset=none: random weights",
    )
