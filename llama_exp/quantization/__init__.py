"""A base model in small types: what is chosen, how floats become integers, and back. Imports no framework."""

from llama_exp.quantization.backbone import (
    OPTIONS,
    chosen,
    dequantize,
    describe,
    fitted,
    of_section,
    options_of,
    quantize,
    require_trainable,
)

__all__ = [
    "OPTIONS",
    "chosen",
    "dequantize",
    "describe",
    "fitted",
    "of_section",
    "options_of",
    "quantize",
    "require_trainable",
]
