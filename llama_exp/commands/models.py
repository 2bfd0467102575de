"""A model for a command that computes: its options, and the model itself. Imports no framework before `load`."""

from __future__ import annotations

import functools
import os

from llama_exp import precision, quantization, runtime
from llama_exp.architecture import AS_STORED, FLOATS, MODES
from llama_exp.commands.parser import Parser
from llama_exp.commands.sources import Source, find, load_tokenizer, opened
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.formats.quantized import SCALE, require_possible
from llama_exp.limits import name_choices
from llama_exp.limits.precision import Policy
from llama_exp.limits.runtime import Backend
from llama_exp.preset import PRESETS, context_length

QUANTIZATIONS = (AS_STORED, FLOATS, *MODES)


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
            default=AS_STORED,
            help="store the weights as integers or float8 (default: as they are; of a run: as it had them)",
        )
    chosen = os.environ.get("KERAS_BACKEND")
    parser.add_argument(
        "--backend",
        choices=name_choices(Backend),
        default=chosen if chosen in name_choices(Backend) else Backend.tensorflow.value,
        help="default: KERAS_BACKEND, else tensorflow",
    )
    parser.add_argument(
        "--precision",
        choices=name_choices(Policy),
        help="dtype policy (default: a run's own; else bfloat16 for weights of 16 bits, float32 for others)",
    )
    parser.add_argument("--offline", action="store_true", help="ask no server: files or the cache must have it")


def load(options):
    """The model that the options name.

    `options.context_length` becomes the number of tokens that the model was made for, None where it is not known.

    Returns:
        A `LlamaCausalLM` with its tokenizer, or None as its tokenizer, and the `Source`.

    Raises:
        InputError: there is no such model, or it is damaged.
    """
    source = find(options.source, options.adapter, options.offline)
    start(options.backend)
    from llama_exp.models import LlamaCausalLM

    tokenizer = load_tokenizer(source)
    with opened(source) as checkpoint:
        options.context_length = checkpoint.context_length
        if options.context_length is None and source.origin in PRESETS:
            options.context_length = context_length(source.origin)
        return LlamaCausalLM(_assemble(checkpoint, source, options), tokenizer), source


def _assemble(checkpoint: Checkpoint, source: Source, options):
    """The backbone of a source with its adapter; the options win over what a run had."""
    from llama_exp import lora
    from llama_exp.models import LlamaBackbone
    from llama_exp.models.build import assemble

    policy = precision.policy(options.precision or source.policy or _stored_policy(checkpoint))
    section = {"mode": options.quantization}
    if options.quantization == AS_STORED:
        section |= source.quantization or {}
    chosen = quantization.choose(section, checkpoint.quantization, checkpoint.path)
    try:
        require_possible(chosen, policy.compute_dtype)
    except ValueError as error:
        action = "choose another --precision or --quantization"
        raise ConfigError(Problem("the model cannot be built like this", "command line", str(error), action)) from error
    factory = functools.partial(LlamaBackbone, **checkpoint.config, dtype=policy)
    adapt = None if source.adapter is None else functools.partial(lora.load_adapter, path=source.adapter)
    return assemble(factory, checkpoint, chosen, adapt)


def start(backend: str) -> None:
    """Imports Keras on a backend, quietly."""
    prepare(backend)
    runtime.import_backend()


def prepare(backend: str) -> None:
    """Says which backend it will be, and imports nothing; a second call changes nothing."""
    runtime.start(backend=backend, jit="auto", threads=0, cache_dir=runtime.default_cache_dir())


def require_tokenizer(model, source: Source) -> None:
    """Fails for a model that has no way from text to its own tokens."""
    action = "put the tokenizer's files into the model's folder"
    if model.tokenizer is None:
        raise InputError(Problem("the model has no tokenizer", str(source.path), "token ids only", action))
    num_tokens, vocabulary_size = model.tokenizer.vocabulary_size, model.backbone.vocabulary_size
    if num_tokens > vocabulary_size:
        found = f"{num_tokens} tokens, {vocabulary_size} embeddings"
        raise InputError(Problem("the tokenizer is another model's", str(source.path), found, action))


def _stored_policy(checkpoint: Checkpoint) -> str:
    floats = {path: tensor for path, tensor in checkpoint.tensors.items() if tensor.dtype.kind not in "iu"}
    # Scales of integers are float32 whatever the model was.
    sizes = {tensor.dtype.itemsize for path, tensor in floats.items() if not path.endswith(SCALE)}
    return "bfloat16" if max(sizes) == 2 else "float32"
