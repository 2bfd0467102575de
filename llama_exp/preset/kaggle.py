"""Presets from Kaggle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llama_exp.errors import InputError, Problem
from llama_exp.preset.failures import require_answer, unavailable
from llama_exp.preset.resolved import Resolved

WEIGHTS_PATTERN = "*.weights.h5"
CONFIG_FILE = "config.json"
# What a preset holds besides its weights; only config.json is there in every preset.
SMALL_FILES = (
    CONFIG_FILE,
    "metadata.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "assets/tokenizer/vocabulary.spm",
    "assets/tokenizer/vocabulary.json",
    "assets/tokenizer/merges.txt",
)


def fetch(source: str, handle: str, load_weights: bool, offline: bool) -> Resolved:
    name = handle.removeprefix("kaggle://")
    if len(name.split("/")) not in (4, 5):
        raise InputError(
            Problem(
                "not a Kaggle model handle", "preset.source", source, "write kaggle://org/model/keras/variant[/version]"
            )
        )
    try:
        import kagglehub
        from kagglehub import cache
        from kagglehub import handle as handles
        from kagglesdk import kaggle_env

        model = handles.parse_model_handle(name)
    except (ImportError, ValueError) as error:
        raise InputError(unavailable(source, f"Kaggle ({name})", error)) from error

    if not model.is_versioned() or cache.Cache().load_from_cache(model) is None:
        require_answer(source, f"Kaggle ({name})", kaggle_env.get_endpoint(kaggle_env.get_env()))
    try:
        if load_weights:
            return Resolved(
                Path(kagglehub.model_download(name)), name, name.split("/")[4] if model.is_versioned() else None
            )
        return Resolved(_small_kaggle_files(name, kagglehub.model_download), name, None)
    except Exception as error:  # requests, kagglehub, kagglesdk and archive errors share no base class
        raise InputError(unavailable(source, f"Kaggle ({name})", error)) from error


def _small_kaggle_files(name: str, download: Callable[[str, str], str]) -> Path:
    """Downloads the files that are not weights; all but the configuration may be missing."""
    folder = Path(download(name, CONFIG_FILE)).parent
    for file in SMALL_FILES[1:]:
        try:
            download(name, file)
        except Exception as error:  # as above; only "there is no such file" may pass
            if getattr(getattr(error, "response", None), "status_code", None) != 404:
                raise
    return folder
