"""Presets from Hugging Face."""

from __future__ import annotations

from pathlib import Path

from llama_exp.errors import InputError, Problem
from llama_exp.preset.failures import require_answer, unavailable
from llama_exp.preset.kaggle import CONFIG_FILE, SMALL_FILES, WEIGHTS_PATTERN
from llama_exp.preset.resolved import Resolved


def fetch(source: str, load_weights: bool, offline: bool) -> Resolved:
    name = source.removeprefix("hf://")
    if name.count("/") != 1:
        raise InputError(Problem("not a Hugging Face repository", "preset.source", source, "write hf://org/model"))
    import huggingface_hub
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not _is_cached(name, load_weights):
        require_answer(source, f"Hugging Face ({name})", constants.ENDPOINT)
    weights = [WEIGHTS_PATTERN, "model.weights.json"] if load_weights else []
    try:
        # Not hf_hub_download: without network it retries for 23 seconds, and this one gives up at once.
        return Resolved(Path(huggingface_hub.snapshot_download(name, allow_patterns=[*SMALL_FILES, *weights])), name, None)
    except Exception as error:  # HTTP, cache and validation errors share no base class
        raise InputError(unavailable(source, f"Hugging Face ({name})", error)) from error


def _is_cached(name: str, load_weights: bool) -> bool:
    import huggingface_hub

    try:
        folder = Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except Exception:  # not in the cache, or not a valid name: the download says which
        return False
    return (folder / CONFIG_FILE).exists() and (not load_weights or any(folder.glob(WEIGHTS_PATTERN)))
