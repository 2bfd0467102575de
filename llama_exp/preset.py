"""Where pre-trained weights come from: a built-in id, Kaggle, Hugging Face or a folder. Imports no framework.

`resolve` turns a `preset.source` into a local folder in KerasHub's preset format, or fails within seconds with the
reason and the ways out. The table repeats what KerasHub publishes: `parameter_count` is Keras' own count of the
preset, so for the tied Llama 3.2 sizes it counts the embedding matrix twice, as their files store it.
"""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llama_exp.errors import InputError, Problem

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
# A dropped packet must not cost minutes: a host that has not answered in this time counts as out of reach.
ANSWER_SECONDS = 2.5


@dataclass(frozen=True)
class Preset:
    """A published preset: its `kaggle://` handle, the parameters it stores and whether they are int8."""

    handle: str
    parameter_count: int
    int8: bool = False


def _llama2(variant: str, version: int, parameter_count: int, model: str = "llama2") -> Preset:
    return Preset(f"kaggle://keras/{model}/keras/{variant}/{version}", parameter_count, variant.endswith("_int8"))


def _llama3(variant: str, version: int, parameter_count: int) -> Preset:
    return _llama2(variant, version, parameter_count, model="llama3")


PRESETS: dict[str, Preset] = {
    "llama2_7b_en": _llama2("llama2_7b_en", 3, 6738415616),
    "llama2_7b_en_int8": _llama2("llama2_7b_en_int8", 2, 6739839488),
    "llama2_instruct_7b_en": _llama2("llama2_instruct_7b_en", 3, 6738415616),
    "llama2_instruct_7b_en_int8": _llama2("llama2_instruct_7b_en_int8", 2, 6739839488),
    "vicuna_1.5_7b_en": _llama2("vicuna_1.5_7b_en", 3, 6738415616, model="vicuna"),
    "llama3_8b_en": _llama3("llama3_8b_en", 5, 8030261248),
    "llama3_8b_en_int8": _llama3("llama3_8b_en_int8", 2, 8031894016),
    "llama3_instruct_8b_en": _llama3("llama3_instruct_8b_en", 5, 8030261248),
    "llama3_instruct_8b_en_int8": _llama3("llama3_instruct_8b_en_int8", 2, 8031894016),
    "llama3.1_8b": _llama3("llama3.1_8b", 2, 8030261248),
    "llama3.1_instruct_8b": _llama3("llama3.1_instruct_8b", 2, 8030261248),
    "llama3.1_guard_8b": _llama3("llama3.1_guard_8b", 2, 8030261248),
    "llama3.2_1b": _llama3("llama3.2_1b", 1, 1498482688),
    "llama3.2_instruct_1b": _llama3("llama3.2_instruct_1b", 1, 1498482688),
    "llama3.2_guard_1b": _llama3("llama3.2_guard_1b", 1, 1498482688),
    "llama3.2_3b": _llama3("llama3.2_3b", 1, 3606752256),
    "llama3.2_instruct_3b": _llama3("llama3.2_instruct_3b", 1, 3606752256),
}


def resolve(source: str, load_weights: bool = True) -> Path:
    """The local folder of a preset, downloaded if it is neither on disk nor cached.

    Args:
        source: a key of `PRESETS`, `kaggle://org/model/keras/variant[/version]`, `hf://org/model`, or a folder.
        load_weights: false leaves the weight files where they are and fetches configuration and tokenizer only.

    Raises:
        InputError: there is no such preset, it is of a kind that cannot be loaded, or it could not be had.
    """
    if source in PRESETS:
        preset = PRESETS[source]
        if preset.int8:
            raise InputError(_int8_problem(source))
        return _from_kaggle(source, preset.handle, load_weights)
    if source.startswith("kaggle://"):
        return _from_kaggle(source, source, load_weights)
    if source.startswith("hf://"):
        return _from_hugging_face(source, load_weights)
    if "://" in source:
        raise InputError(
            Problem("the scheme is unknown", "preset.source", source, "use kaggle://, hf://, a built-in id or a folder")
        )
    return _from_disk(source)


def _from_disk(source: str) -> Path:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(
            Problem(
                "a preset is a folder in KerasHub's format, and this is a file (other formats are not supported yet)",
                "preset.source",
                source,
                f"give the folder that holds {CONFIG_FILE} and model.weights.h5",
            )
        )
    near = difflib.get_close_matches(source, PRESETS, n=1)
    guess = f"did you mean {near[0]}? Otherwise " if near else f"built-in: {', '.join(PRESETS)}; or "
    raise InputError(
        Problem(
            "neither a built-in preset nor a folder",
            "preset.source",
            source,
            f"{guess}kaggle://..., hf://..., an existing folder, preset=none",
        )
    )


def _from_kaggle(source: str, handle: str, load_weights: bool) -> Path:
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
        raise InputError(_unavailable(source, f"Kaggle ({name})", error)) from error

    if not model.is_versioned() or cache.Cache().load_from_cache(model) is None:
        _require_answer(source, f"Kaggle ({name})", kaggle_env.get_endpoint(kaggle_env.get_env()))
    try:
        if load_weights:
            return Path(kagglehub.model_download(name))
        return _small_kaggle_files(name, kagglehub.model_download)
    except Exception as error:  # requests, kagglehub, kagglesdk and archive errors share no base class
        raise InputError(_unavailable(source, f"Kaggle ({name})", error)) from error


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


def _from_hugging_face(source: str, load_weights: bool) -> Path:
    name = source.removeprefix("hf://")
    if name.count("/") != 1:
        raise InputError(Problem("not a Hugging Face repository", "preset.source", source, "write hf://org/model"))
    import huggingface_hub
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not _is_cached(name, load_weights):
        _require_answer(source, f"Hugging Face ({name})", constants.ENDPOINT)
    weights = [WEIGHTS_PATTERN, "model.weights.json"] if load_weights else []
    try:
        # Not hf_hub_download: without network it retries for 23 seconds, and this one gives up at once.
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[*SMALL_FILES, *weights]))
    except Exception as error:  # HTTP, cache and validation errors share no base class
        raise InputError(_unavailable(source, f"Hugging Face ({name})", error)) from error


def _is_cached(name: str, load_weights: bool) -> bool:
    import huggingface_hub

    try:
        folder = Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except Exception:  # not in the cache, or not a valid name: the download says which
        return False
    return (folder / CONFIG_FILE).exists() and (not load_weights or any(folder.glob(WEIGHTS_PATTERN)))


def _require_answer(source: str, origin: str, url: str) -> None:
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
        raise InputError(_unavailable(source, origin, error)) from error


def _unavailable(source: str, origin: str, error: Exception) -> Problem:
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


def _int8_problem(source: str) -> Problem:
    full = source.removesuffix("_int8")
    return Problem("int8 presets are not supported yet", "preset.source", source, f"use preset.source={full}")
