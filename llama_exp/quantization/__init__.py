"""A base model in small types: what is chosen, how floats become integers, and back. Imports no framework."""

from llama_exp.architecture.quantization import describe
from llama_exp.quantization.backbone import (
    choose,
    dequantize,
    fit_checkpoint,
    quantize,
    read_keras_config,
    require_trainable,
)

__all__ = [
    "choose",
    "dequantize",
    "describe",
    "fit_checkpoint",
    "quantize",
    "read_keras_config",
    "require_trainable",
]
