"""The weights that a run started from, as its model had them: a preset's, or random ones drawn anew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp import preset
from llama_exp.architecture import CONFIG_KEYS
from llama_exp.console import live
from llama_exp.errors import InputError, Problem
from llama_exp.formats import open_checkpoint
from llama_exp.formats.checkpoint import Checkpoint, match_architecture
from llama_exp.formats.digest import digest_tensors
from llama_exp.formats.quantized import dequantize_checkpoint
from llama_exp.formats.random_weights import random_checkpoint
from llama_exp.inspection.sections import Sections
from llama_exp.quantization import choose, fit_checkpoint
from llama_exp.results import RunResult

RANDOM = "random weights"
Read = Callable[[str], np.ndarray]


def name_start(run: RunResult, sections: Sections) -> str:
    """What the run started from, for a person."""
    if sections.preset is None:
        return f"{RANDOM} of seed {sections.seed}"
    origin = _recorded(run).get("origin")
    return origin if isinstance(origin, str) else str(sections.preset)


def find_digest(run: RunResult, sections: Sections) -> str | None:
    """The digest of these weights that the run recorded; None: it has none (random weights that trained themselves)."""
    digest = _recorded(run).get("digest") if sections.preset is not None else run.record.get("base_digest")
    return digest if isinstance(digest, str) else None


@contextlib.contextmanager
def open_start(run: RunResult, sections: Sections, base: str | None) -> Iterator[Read]:
    """Yields what gives a matrix by the path of its variable, float32, rounded as the run's variables were.

    Args:
        run: the run.
        sections: of its config.
        base: where its preset is now; None: where the run found it.

    Raises:
        InputError: the preset is gone, or its weights are not those that the run read.
    """
    with _opened(run, sections, base) as checkpoint:
        stored = choose(sections.quantization, checkpoint.quantization, checkpoint.path)
        checkpoint = fit_checkpoint(checkpoint, stored)
        _require_digest(run, sections, checkpoint)
        whole = checkpoint if checkpoint.quantization is None else dequantize_checkpoint(checkpoint)

        def read(path: str) -> np.ndarray:
            if checkpoint.quantization is not None:
                return whole.tensors[path].read(np.dtype(np.float32))
            return whole.tensors[path].read(sections.dtype).astype(np.float32, copy=False)

        yield read


@contextlib.contextmanager
def _opened(run: RunResult, sections: Sections, base: str | None) -> Iterator[Checkpoint]:
    if sections.preset is None:
        yield random_checkpoint(sections.model, sections.seed)
        return
    with open_checkpoint(_find_preset(run, sections, base)) as checkpoint:
        stated = {key: value for key, value in sections.model.items() if key in CONFIG_KEYS}
        yield match_architecture(checkpoint, stated, "give the preset that the run started from: --base SRC")


def _find_preset(run: RunResult, sections: Sections, base: str | None) -> Path:
    recorded = _recorded(run)
    source = str(sections.preset)
    if base is not None:
        return preset.resolve(base, where="--base").path
    if recorded.get("revision") is None and isinstance(recorded.get("origin"), str) and "://" not in source:
        source = recorded["origin"]  # absolute: the run's working folder may have been another one
    else:
        source = preset.at_revision(source, recorded.get("origin"), recorded.get("revision"))
    try:
        return preset.resolve(source).path
    except InputError as error:
        (problem,) = error.problems
        action = "say where the preset is now: --base SRC, a folder, a .gguf file or hf://..."
        what = "the preset that the run started from cannot be had"
        raise InputError(Problem(what, str(run.folder), f"{source}: {problem.what}", action)) from error


def _require_digest(run: RunResult, sections: Sections, checkpoint: Checkpoint) -> None:
    expected = find_digest(run, sections)
    if expected is None:
        return
    tensors = sorted(checkpoint.tensors.items())
    with live.steps_bar("comparing the start's digest", len(tensors)) as advance:

        def read() -> Iterator[tuple[str, Any]]:
            for item in tensors:
                yield item
                advance()

        found = digest_tensors(read(), sections.dtype)
    if found != expected:
        what = "these are not the weights that the run started from"
        action = "give the preset as it was then: --base SRC"
        where = f"{checkpoint.path} (run: {run.folder})"
        raise InputError(Problem(what, where, f"digest {found}, the run started from {expected}", action))


def _recorded(run: RunResult) -> Mapping[str, Any]:
    facts = run.record.get("preset")
    return facts if isinstance(facts, Mapping) else {}
