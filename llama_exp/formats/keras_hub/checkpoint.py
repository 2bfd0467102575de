"""Presets in KerasHub's folder format, in and out; the two halves are `keras_hub_config` and `keras_hub_weights`.

config.json: the architecture. model.weights.h5: the weights; above a size model.weights.json and shards
model_00000.weights.h5, ... instead. metadata.json: versions, count and date, for people; and a key of ours that
KerasHub does not read, `context_length`: tokens that the model is meant for. tokenizer.json and assets/: the tokenizer,
written and read by `llama_exp.tokenizer`.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from llama_exp.architecture import EMBEDDINGS, FINAL_NORM, Quantization, variable_shapes
from llama_exp.errors import InputError
from llama_exp.files.json_file import inside, read_json
from llama_exp.formats import checkpoint
from llama_exp.formats.checkpoint import Checkpoint, Tensor
from llama_exp.formats.hdf5_file import make_tensor
from llama_exp.formats.keras_hub import quantized as keras_hub_quantized
from llama_exp.formats.keras_hub import weights as keras_hub_weights
from llama_exp.formats.keras_hub.config import CONFIG_FILE, DOUBTFUL, config_document, read_config

BYTE_PAIR_ASSET = Path("assets", "tokenizer", "vocabulary.json")
METADATA_FILE = "metadata.json"
CONTEXT_LENGTH = "context_length"


@contextlib.contextmanager
def open_checkpoint(folder: Path) -> Iterator[Checkpoint]:
    """The model of a preset; every name, shape and type is checked against its configuration first.

    Raises:
        InputError: the folder is not such a preset, or damaged.
    """
    folder = Path(folder)
    config, quantization = read_config(folder)
    context_length = read_context_length(folder)
    with keras_hub_weights.open_stored(folder) as stored:
        says_tied = config.get("tie_word_embeddings")
        stores_output = _output_matrix(quantization) in stored
        config["tie_word_embeddings"] = not stores_output if says_tied is None else says_tied
        if says_tied and stores_output and quantization is None:
            config["tie_word_embeddings"] = False  # tied, but stored all the same: read as untied, and compared below
        layout = _layout(config, quantization)
        keras_hub_weights.check_stored(folder, stored, layout)
        if quantization is None:
            shapes = variable_shapes(config)
            tensors = {item.variable: make_tensor(stored[path], shapes[item.variable]) for path, item in layout.items()}
        else:
            tensors = keras_hub_quantized.read_tensors(stored, config, quantization)
        opened = Checkpoint(folder, "keras_hub", config, tensors, quantization, DOUBTFUL, context_length)
        yield checkpoint.tie(opened) if says_tied and not config["tie_word_embeddings"] else opened


def read_quantization(folder: Path) -> Quantization | None:
    """How the preset's weights are stored; None: in floating point. No weight file is opened.

    Raises:
        InputError: the folder is not such a preset.
    """
    return read_config(folder).quantization


def read_architecture(folder: Path) -> dict:
    """Every constructor argument of the preset's backbone.

    Where `config.json` says whether the embeddings are tied, no weight file is opened. Where it does not, the file that
    holds the embeddings tells: an interrupted download is enough if it has that one. A preset without any weights
    counts as untied.

    Raises:
        InputError: the folder is not such a preset, or lacks just the shard that would tell.
    """
    folder = Path(folder)
    config, quantization = read_config(folder)
    if "tie_word_embeddings" not in config:
        config["tie_word_embeddings"] = False
        if keras_hub_weights.has_weights(folder):
            with keras_hub_weights.open_stored(folder, keras_hub_weights.EMBEDDINGS_GROUP) as stored:
                config["tie_word_embeddings"] = _output_matrix(quantization) not in stored
    return config


def write(
    folder: Path,
    config: Mapping,
    tensors: Mapping[str, Tensor],
    quantization: Quantization | None = None,
    max_shard_bytes: int | None = 10 << 30,
    context_length: int | None = None,
) -> None:
    """Writes a preset that KerasHub and `open_checkpoint` read, one tensor in memory at a time.

    Args:
        folder: from `formats.writing`; the tokenizer, if there is one, must be in it already.
        config: every constructor argument of the backbone.
        tensors: one for every variable, by path; types are kept.
        quantization: None for floating-point weights; not float8, which the format does not have.
        max_shard_bytes: larger weights are split into files of about this size; None: one file.
        context_length: tokens that the model is meant for; None: not known.

    Raises:
        InputError: a tensor cannot be read.
        ValueError: the weights are float8.
    """
    if quantization is not None and quantization.mode == "float8":
        raise ValueError(
            "a KerasHub preset cannot hold float8 weights: Keras' own float8 stores floats and trains them. Turn them "
            "into floats with llama_exp.quantization.dequantize(backbone), or merge adapters with "
            "llama_exp.lora.merge(backbone), and save that; or save the model it was quantized from."
        )
    if quantization is not None:
        tensors = keras_hub_quantized.file_tensors(config, tensors, quantization)
    keras_hub_weights.write_weights(folder, _layout(config, quantization), tensors, max_shard_bytes)
    # KerasHub has two names for one architecture, and its Llama 3 tokenizer (byte-level BPE) asks for the second.
    class_name = "Llama3Backbone" if (folder / BYTE_PAIR_ASSET).exists() else "LlamaBackbone"
    dtype = str(tensors[FINAL_NORM if quantization else EMBEDDINGS].dtype)
    _write_json(folder / CONFIG_FILE, config_document(config, class_name, dtype, quantization))
    parameter_count = sum(math.prod(tensor.shape) for tensor in tensors.values())
    _write_json(folder / METADATA_FILE, _metadata(parameter_count, context_length))


def _layout(config: Mapping, quantization: Quantization | None) -> dict[str, keras_hub_weights.FileTensor]:
    if quantization is None:
        return keras_hub_weights.layout(config)
    return keras_hub_quantized.layout(config, quantization)


def _output_matrix(quantization: Quantization | None) -> str:
    """Where a file has an output matrix of its own."""
    if quantization is None:
        return keras_hub_weights.REVERSE_EMBEDDINGS
    return keras_hub_quantized.output_matrix_path(quantization)


def read_context_length(folder: Path) -> int | None:
    """What metadata.json says of it; KerasHub's own says nothing, and a preset may lack the file."""
    path = inside(folder, METADATA_FILE)
    if not os.path.lexists(path):
        return None
    length = read_json(path).get(CONTEXT_LENGTH)
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        what = f"{CONTEXT_LENGTH} must be a whole number above 0"
        raise InputError.about(path, what, repr(length)[:80])
    return length


def _metadata(parameter_count: int, context_length: int | None) -> dict:
    from llama_exp import __version__

    stated = {} if context_length is None else {CONTEXT_LENGTH: context_length}
    return {
        "keras_version": importlib.metadata.version("keras"),
        "llama_exp_version": __version__,
        "parameter_count": parameter_count,
        "date_saved": datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S"),
        "tasks": ["CausalLM"],
        **stated,
    }


def _write_json(path: Path, document: dict) -> None:
    path.write_text(json.dumps(document, indent=4), encoding="utf-8")
