"""Whether the tensors of a Hugging Face checkpoint are those of the model that its configuration states.

Shape letters: D hidden_dim, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llama_exp.errors import DOWNLOAD, InputError, Problem
from llama_exp.files.json_file import NAMES_SHOWN
from llama_exp.formats.hugging_face.tensor_names import EMBEDDINGS_NAME, OUTPUT_NAME, Place
from llama_exp.formats.safetensors_file import StoredTensor

BLOCK = re.compile(r"model\.layers\.(\d{1,6})\.")
COMPARED_BYTES = 8 << 20


def require_layers(folder: Path, config: Mapping, stored: Mapping[str, StoredTensor]) -> None:
    """Compares the number of layers first: it is the clearest message, and bounds what is listed afterwards."""
    found = 1 + max((int(match[1]) for name in stored if (match := BLOCK.match(name))), default=-1)
    if found != config["num_layers"]:
        surplus = [name for name in stored if (match := BLOCK.match(name)) and int(match[1]) >= config["num_layers"]]
        names = f" ({shorten_names(surplus)} would not be used)" if surplus else ""
        action = "use the config.json that belongs to the weights, or download the checkpoint again"
        what = f"the file has {found} layers, the configuration {config['num_layers']}"
        raise InputError.about(folder, what, f"num_hidden_layers={config['num_layers']}{names}", action)


def require_fit(folder: Path, config: Mapping, stored: Mapping[str, StoredTensor], places: dict[str, Place]) -> None:
    """Names and shapes of all tensors, before any is read."""
    shapes = {place.name: place.shape for place in places.values()}
    # Frequencies of rotary embedding, which old files store and nobody reads; and a tied model's table once more.
    half = (config["hidden_dim"] // config["num_query_heads"] // 2,)
    harmless: dict[str, tuple[int, ...]] = {
        f"model.layers.{i}.self_attn.rotary_emb.inv_freq": half for i in range(config["num_layers"])
    }
    harmless["model.rotary_emb.inv_freq"] = half
    if config["tie_word_embeddings"]:
        harmless[OUTPUT_NAME] = shapes[EMBEDDINGS_NAME]
    missing = [name for name in shapes if name not in stored]
    unexpected = [name for name in stored if name not in shapes and name not in harmless]
    unfit = [
        f"{name}: shape {stored[name].shape} instead of {shape}"
        for name, shape in (shapes | harmless).items()
        if name in stored and stored[name].shape != shape
    ]
    action = "use the config.json that belongs to the weights, or download the checkpoint again"
    if missing == [OUTPUT_NAME]:
        action = "if the model's embeddings are tied, set tie_word_embeddings to true in config.json"
    problems = [
        describe_names(folder, f"{len(names)} tensors {what}", names, action)
        for what, names in (("are missing", missing), ("are not the model's", unexpected), ("do not fit", unfit))
        if names
    ]
    if problems:
        raise InputError(*problems)


def require_equal(output: StoredTensor, table: StoredTensor) -> None:
    """Both (V, D); compared in slices."""
    rows = max(1, COMPARED_BYTES // (output.shape[1] * 8))
    for first in range(0, output.shape[0], rows):
        if not np.array_equal(_rows(output, first, rows), _rows(table, first, rows)):
            what = "the output matrix is not the embedding table, but the configuration ties them"
            action = "if they are two matrices, set tie_word_embeddings to false in config.json"
            raise InputError.about(output.origin, what, "tie_word_embeddings=true", action)


def _rows(stored: StoredTensor, first: int, count: int) -> np.ndarray:
    rows = min(count, stored.shape[0] - first)
    offset = stored.offset + first * stored.shape[1] * stored.dtype.itemsize
    return stored._replace(offset=offset, shape=(rows, stored.shape[1])).read()


def shorten_names(names: list[str]) -> str:
    """The first few names, for messages."""
    shown = ", ".join(repr(name)[1:-1][:120] for name in names[:NAMES_SHOWN])
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if names[NAMES_SHOWN:] else "")


def describe_names(where: Path, what: str, names: list[str], action: str = DOWNLOAD) -> Problem:
    """What is wrong with some tensors or files, by name."""
    return Problem(what, str(where), shorten_names(names), action)
