"""What this machine, this code and this config would record, before anything is loaded and afterwards."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp import runtime
from llama_exp.config.identity import flatten, to_dict, to_record
from llama_exp.config.schema import Config
from llama_exp.console.progress import Progress
from llama_exp.files.json_text import plain
from llama_exp.files.process import Process
from llama_exp.files.redact import redact
from llama_exp.results.state import NO_PATCH, State
from llama_exp.run import provenance, sources
from llama_exp.run.folder import RunFolder

# One that computes, and writes nothing.
_READER = Process(rank=1, size=2)


def describe_present(config: Config) -> State:
    """What a run of this config would record when it begins."""
    facts, patch = provenance.collect(sys.argv)
    text = None if patch is None else redact(patch).encode("utf-8", "backslashreplace")
    digest = NO_PATCH if text is None else hashlib.sha256(text).hexdigest()
    return State(plain(flatten(to_record(config))), plain(facts), digest, sources.list_sources())


def load_present(config: Config) -> Mapping[str, Any]:
    """What run.json would say of data, tokenizer, preset and computation; loads all of them, trains and writes nothing.

    Raises:
        LlamaExpError: as a run that reads them.
    """
    runtime.start(**to_dict(config.runtime))
    from llama_exp.run.job import Run  # whose modules import NumPy, once the threads are set

    folder, bar = RunFolder(Path("nowhere"), _READER), Progress(config.trainer.max_steps, shown=False)
    try:
        Run(config, folder, None, _READER, bar, config.trainer.max_steps)
    finally:
        bar.close()
    return plain(folder.known)
