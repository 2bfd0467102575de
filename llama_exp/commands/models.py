"""A model for a command that computes: its options, and the model itself. Imports no framework before `load`."""

from __future__ import annotations

import os
from pathlib import Path

from llama_exp import precision, runtime
from llama_exp.commands.arguments import Parser
from llama_exp.commands.sources import Source, find
from llama_exp.errors import InputError, Problem
from llama_exp.formats import open_checkpoint
from llama_exp.tokenizer.assets import has_tokenizer

QUANTIZATIONS = ("none", "int8", "int4")
CACHE_DIR = "~/.cache/llama_exp"


def add_arguments(parser: Parser, adapters: bool = True) -> None:
    """SRC and how it is loaded."""
    parser.add_argument(
        "source",
        metavar="SRC",
        help="a built-in preset (llama-exp presets), kaggle://..., hf://..., a folder, a .gguf file, or a run's folder",
    )
    if adapters:
        parser.add_argument("--adapter", metavar="DIR", help="LoRA adapter: a PEFT folder or a KerasHub .lora.h5 file")
        parser.add_argument(
            "--quantization",
            choices=QUANTIZATIONS,
            default="none",
            help="store the weights as integers (default: none)",
        )
    chosen = os.environ.get("KERAS_BACKEND")
    parser.add_argument(
        "--backend",
        choices=runtime.BACKENDS,
        default=chosen if chosen in runtime.BACKENDS else runtime.BACKENDS[0],
        help="default: KERAS_BACKEND, else tensorflow",
    )
    parser.add_argument(
        "--precision",
        choices=precision.POLICIES,
        help="dtype policy (default: a run's own; else bfloat16 for weights of 16 bits, float32 for others)",
    )
    parser.add_argument("--offline", action="store_true", help="ask no server: files or the cache must have it")


def load(options):
    """The model that the options name.

    Returns:
        A `LlamaCausalLM` with its tokenizer, or None as its tokenizer, and the `Source`.

    Raises:
        InputError: there is no such model, or it is damaged.
    """
    source = find(options.source, options.adapter, options.offline)
    policy = options.precision or source.policy or _stored_policy(source.path)
    start(options.backend)
    from llama_exp import lora
    from llama_exp import tokenizer as tokenizers
    from llama_exp.models import LlamaBackbone, LlamaCausalLM, weights

    tokenizer = tokenizers.load(source.path) if has_tokenizer(source.path) else None
    backbone = weights.load(LlamaBackbone, source.path, dtype=precision.policy(policy), **(source.stated or {}))
    if options.quantization != "none":
        backbone.quantize(options.quantization)
    elif (source.quantization or {}).get("mode", "none") != "none":
        section = source.quantization
        backbone.quantize(section["mode"], section.get("quantize_activations"), section.get("group_size"))
    if source.adapter is not None:
        lora.load_adapter(backbone, source.adapter)
    return LlamaCausalLM(backbone, tokenizer), source


def start(backend: str) -> None:
    """Imports Keras on a backend, quietly."""
    cache_dir = os.environ.get("LLAMA_EXP_CACHE", CACHE_DIR)
    runtime.start(backend=backend, jit="auto", threads=0, cache_dir=cache_dir)
    runtime.import_backend()


def require_tokenizer(model, source: Source) -> None:
    """Fails for a model that has no way from text to tokens."""
    if model.tokenizer is None:
        action = "put the tokenizer's files into the model's folder"
        raise InputError(Problem("the model has no tokenizer", str(source.path), "token ids only", action))


def _stored_policy(path: Path) -> str:
    with open_checkpoint(path) as checkpoint:
        sizes = {tensor.dtype.itemsize for tensor in checkpoint.tensors.values() if tensor.dtype.kind not in "iu"}
    return "bfloat16" if max(sizes) == 2 else "float32"
