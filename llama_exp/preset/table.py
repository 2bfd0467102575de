"""The built-in presets: what Keras publishes, under which handle, and how large it is. Imports no framework."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from llama_exp.architecture import DEFAULTS, SIZES, Quantization, count_parameters, make_quantization

# Tokens that each generation was trained on, by the beginning of its presets' names.
_CONTEXT_LENGTHS = {"llama2_": 4096, "vicuna_1.5_": 4096, "llama3_": 8192, "llama3.1_": 131072, "llama3.2_": 131072}
FLOAT_BYTES = {"float32": 4, "bfloat16": 2}
PRECISIONS = (*FLOAT_BYTES, "int8", "int4")


def _sizes(*sizes: int) -> Mapping[str, object]:
    return {**DEFAULTS, **dict(zip(SIZES, sizes, strict=True))}


# As the files store them: the Llama 3.2 sizes are tied, and their presets hold the matrix twice all the same.
LLAMA2_7B = _sizes(32000, 32, 32, 4096, 11008, 32)
LLAMA3_8B = _sizes(128256, 32, 32, 4096, 14336, 8)
LLAMA32_1B = _sizes(128256, 16, 32, 2048, 8192, 8)
LLAMA32_3B = _sizes(128256, 28, 24, 3072, 8192, 8)


@dataclass(frozen=True)
class Preset:
    """A published preset.

    Attributes:
        handle: `kaggle://` handle with version.
        parameter_count: Keras' own count: what the file stores, scales of int8 kernels and a tied matrix's second
            copy included.
        description: what it is, one line.
        architecture: the sizes that decide memory, under the names of `llama_exp.architecture`.
    """

    handle: str
    parameter_count: int
    description: str
    architecture: Mapping[str, object]

    @property
    def int8(self) -> bool:
        """Whether the weights are stored as int8."""
        return "_int8/" in self.handle

    @property
    def quantization(self) -> Quantization | None:
        """How the weights are stored: Keras' int8, or in floating point (None)."""
        return make_quantization("int8", float_activations=[], asymmetric_activations=False) if self.int8 else None

    @property
    def download_bytes(self) -> int:
        """Estimate: Keras publishes the float presets in bfloat16."""
        return weight_bytes(self.architecture, "int8" if self.int8 else "bfloat16")


def weight_bytes(architecture: Mapping, precision: str) -> int:
    """Memory of the weights alone, without activations, gradients or a cache.

    int8 and int4 as `llama_exp.formats.quantized` stores them: embeddings and linear layers as integers, their scales
    and zero points counted, norms in bfloat16; float8 takes what int8 takes. Precision is one of `PRECISIONS`.
    """
    if precision in FLOAT_BYTES:
        return FLOAT_BYTES[precision] * count_parameters(architecture)
    from llama_exp.formats.quantized import variable_parts

    quantization = make_quantization(precision)
    assert quantization is not None, precision
    parts = variable_parts(architecture, quantization).values()
    return sum(
        math.prod(shape) * (FLOAT_BYTES["bfloat16"] if dtype is None else dtype.itemsize) for shape, dtype in parts
    )


def _kaggle(model: str, variant: str, version: int) -> str:
    return f"kaggle://keras/{model}/keras/{variant}/{version}"


PRESETS: dict[str, Preset] = {
    "llama2_7b_en": Preset(
        _kaggle("llama2", "llama2_7b_en", 3), 6738415616, "Llama 2 7B, base model: continues English text", LLAMA2_7B
    ),
    "llama2_7b_en_int8": Preset(
        _kaggle("llama2", "llama2_7b_en_int8", 2), 6739839488, "Llama 2 7B, base model, weights in int8", LLAMA2_7B
    ),
    "llama2_instruct_7b_en": Preset(
        _kaggle("llama2", "llama2_instruct_7b_en", 3), 6738415616, "Llama 2 7B, tuned to answer in chats", LLAMA2_7B
    ),
    "llama2_instruct_7b_en_int8": Preset(
        _kaggle("llama2", "llama2_instruct_7b_en_int8", 2),
        6739839488,
        "Llama 2 7B, tuned to answer in chats, weights in int8",
        LLAMA2_7B,
    ),
    "vicuna_1.5_7b_en": Preset(
        _kaggle("vicuna", "vicuna_1.5_7b_en", 3),
        6738415616,
        "Vicuna 1.5 7B: Llama 2 tuned on conversations that users shared",
        LLAMA2_7B,
    ),
    "llama3_8b_en": Preset(
        _kaggle("llama3", "llama3_8b_en", 5), 8030261248, "Llama 3 8B, base model: continues English text", LLAMA3_8B
    ),
    "llama3_8b_en_int8": Preset(
        _kaggle("llama3", "llama3_8b_en_int8", 2), 8031894016, "Llama 3 8B, base model, weights in int8", LLAMA3_8B
    ),
    "llama3_instruct_8b_en": Preset(
        _kaggle("llama3", "llama3_instruct_8b_en", 5), 8030261248, "Llama 3 8B, tuned to follow instructions", LLAMA3_8B
    ),
    "llama3_instruct_8b_en_int8": Preset(
        _kaggle("llama3", "llama3_instruct_8b_en_int8", 2),
        8031894016,
        "Llama 3 8B, tuned to follow instructions, weights in int8",
        LLAMA3_8B,
    ),
    "llama3.1_8b": Preset(
        _kaggle("llama3", "llama3.1_8b", 2), 8030261248, "Llama 3.1 8B, base model for long contexts", LLAMA3_8B
    ),
    "llama3.1_instruct_8b": Preset(
        _kaggle("llama3", "llama3.1_instruct_8b", 2),
        8030261248,
        "Llama 3.1 8B, tuned to follow instructions in several languages",
        LLAMA3_8B,
    ),
    "llama3.1_guard_8b": Preset(
        _kaggle("llama3", "llama3.1_guard_8b", 2),
        8030261248,
        "Llama 3.1 8B, tuned to tell safe from unsafe prompts and answers",
        LLAMA3_8B,
    ),
    "llama3.2_1b": Preset(_kaggle("llama3", "llama3.2_1b", 1), 1498482688, "Llama 3.2 1B, base model", LLAMA32_1B),
    "llama3.2_instruct_1b": Preset(
        _kaggle("llama3", "llama3.2_instruct_1b", 1),
        1498482688,
        "Llama 3.2 1B, tuned to follow instructions",
        LLAMA32_1B,
    ),
    "llama3.2_guard_1b": Preset(
        _kaggle("llama3", "llama3.2_guard_1b", 1),
        1498482688,
        "Llama 3.2 1B, tuned to tell safe from unsafe prompts and answers",
        LLAMA32_1B,
    ),
    "llama3.2_3b": Preset(_kaggle("llama3", "llama3.2_3b", 1), 3606752256, "Llama 3.2 3B, base model", LLAMA32_3B),
    "llama3.2_instruct_3b": Preset(
        _kaggle("llama3", "llama3.2_instruct_3b", 1),
        3606752256,
        "Llama 3.2 3B, tuned to follow instructions",
        LLAMA32_3B,
    ),
}


def find_name(source: str) -> str | None:
    """The built-in id of a source, which may be one, or its handle without the version; None: it has none."""
    origins = {preset.handle.rpartition("/")[0]: name for name, preset in PRESETS.items()}
    return source if source in PRESETS else origins.get(source)


def context_length(name: str) -> int:
    """Tokens that a built-in preset was trained on; the presets' own files do not say it."""
    return next(length for prefix, length in _CONTEXT_LENGTHS.items() if name.startswith(prefix))
