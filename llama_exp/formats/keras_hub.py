"""Presets in KerasHub's folder format, in and out; the two halves are `keras_hub_config` and `keras_hub_weights`.

config.json: the architecture. model.weights.h5: the weights; above a size model.weights.json and shards
model_00000.weights.h5, ... instead. metadata.json: versions, count and date, for people. tokenizer.json and assets/:
the tokenizer, written and read by `llama_exp.tokenizer`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras

from llama_exp.errors import InputError, Problem, StorageError
from llama_exp.formats import keras_hub_weights
from llama_exp.formats.keras_hub_config import CONFIG_FILE, config_document, read_config, require_agreement

TOKENIZER_FILE = "tokenizer.json"
BYTE_PAIR_ASSET = Path("assets", "tokenizer", "vocabulary.json")
METADATA_FILE = "metadata.json"
# A folder with anything else in it is somebody's work and is never replaced.
PRESET_FILES = (
    CONFIG_FILE,
    METADATA_FILE,
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "generation_config.json",
    "assets",
    "README.md",
    "preprocessor.json",
    "task.json",
    "model.weights.json",
    "*.weights.h5",
)


def load_backbone(backbone_class, folder: Path, load_weights: bool = True, dtype=None, **stated):
    """Builds the backbone that a preset describes.

    Order: every header is checked against the configuration, then the model is built, then it is filled; a file
    that lies about its size cannot make a model of that size.

    Args:
        backbone_class: `LlamaBackbone` or a subclass.
        folder: a preset's folder.
        load_weights: false leaves random weights; the weight files need not exist.
        dtype: Keras dtype policy; None: the global one. What the file says about types does not count.
        **stated: constructor arguments. A shape that differs from the preset's is an error, other values override.

    Raises:
        InputError: the folder is not such a preset, or has another shape than `stated`.
    """
    folder = Path(folder)
    config = _complete_config(folder, stated)
    if load_weights:
        keras_hub_weights.check_weights(folder, config)
    try:
        backbone = backbone_class(**config, dtype=dtype)
    except ValueError as error:
        path = str(folder / CONFIG_FILE)
        raise InputError(
            Problem("the preset's configuration is impossible", path, str(error), "choose another preset")
        ) from error
    if load_weights:
        keras_hub_weights.load_weights(backbone, folder)
    return backbone


def load_weights(backbone, folder: Path) -> None:
    """Fills a backbone that was built from its own configuration; the preset's shape must be the same.

    Raises:
        InputError: shapes differ (field by field), or the files are missing, broken or not this model's.
    """
    folder = Path(folder)
    require_agreement(read_config(folder), _architecture(backbone), folder)
    keras_hub_weights.load_weights(backbone, folder)


def check_preset(folder: Path, stated: dict) -> None:
    """What `load_weights` would say about a model with the arguments `stated`, before it is built: headers only.

    Args:
        folder: a preset's folder.
        stated: all constructor arguments of the backbone, newer names.
    """
    folder = Path(folder)
    require_agreement(read_config(folder), stated, folder)
    keras_hub_weights.check_weights(folder, stated)


def save_preset(backbone, folder: Path, tokenizer=None, max_shard_gib: float | None = 10) -> None:
    """Writes a preset that KerasHub and `load_backbone` read. The folder appears complete or not at all.

    Args:
        backbone: a `LlamaBackbone` without adapters.
        folder: must not exist, be empty, or hold nothing but a preset, which is replaced.
        tokenizer: with `save(folder)`; None: a preset without tokenizer.
        max_shard_gib: larger weights are split into files of about this size; None: one file.

    Raises:
        ValueError: the backbone has adapters, which the format cannot hold.
        StorageError: the folder is not replaceable or cannot be written.
    """
    adapted = [path for path, linear in backbone.linear_layers().items() if linear.adapter is not None]
    if adapted:
        raise ValueError(
            f"the backbone has unmerged adapters ({adapted[0]} and {len(adapted) - 1} more), which a preset cannot "
            "hold. Merge them with llama_exp.lora.merge(backbone), or save them with llama_exp.lora.save_adapter."
        )
    with _replacing(Path(folder)) as temporary:
        keras_hub_weights.save_weights(backbone, temporary, max_shard_gib)
        if tokenizer is not None:
            tokenizer.save(temporary)
        _write_json(temporary / CONFIG_FILE, config_document(backbone, _class_name(temporary)))
        _write_json(temporary / METADATA_FILE, _metadata(backbone))


def _complete_config(folder: Path, stated: dict) -> dict:
    config = read_config(folder)
    require_agreement(config, stated, folder)
    config = config | stated
    if "tie_word_embeddings" not in config:
        config["tie_word_embeddings"] = keras_hub_weights.has_weights(folder) and keras_hub_weights.is_tied(folder)
    return config


def _architecture(backbone) -> dict:
    config = backbone.get_config()
    return {key: value for key, value in config.items() if key not in ("name", "trainable", "dtype")}


def _class_name(folder: Path) -> str:
    # KerasHub has two names for one architecture, and its Llama 3 tokenizer (byte-level BPE) asks for the second.
    return "Llama3Backbone" if (folder / BYTE_PAIR_ASSET).exists() else "LlamaBackbone"


def _metadata(backbone) -> dict:
    from llama_exp import __version__

    return {
        "keras_version": keras.version(),
        "llama_exp_version": __version__,
        "parameter_count": backbone.count_params(),
        "date_saved": datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S"),
        "tasks": ["CausalLM"],
    }


def _write_json(path: Path, document: dict) -> None:
    path.write_text(json.dumps(document, indent=4), encoding="utf-8")


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which takes its place when the block ends and vanishes if it fails."""
    _require_replaceable(folder)
    nonce = secrets.token_hex(4)
    temporary = folder.with_name(f"{folder.name}.tmp-{nonce}")
    old = folder.with_name(f"{folder.name}.old-{nonce}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            _sync(path)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        _sync(folder.parent)
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        action = "free space, or choose another folder"
        raise StorageError(
            Problem("the preset could not be written", str(folder), error.strerror or str(error), action)
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    foreign = (
        sorted(path.name for path in folder.iterdir() if not any(path.match(name) for name in PRESET_FILES))
        if folder.is_dir()
        else [folder.name]
    )
    if foreign:
        what = "the folder holds other things than a preset and is not replaced"
        raise StorageError(Problem(what, str(folder), ", ".join(foreign[:5]), "choose a new or an empty folder"))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
