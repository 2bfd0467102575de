"""`llama-exp convert`: a model from any format into KerasHub's, Hugging Face's or llama.cpp's."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from rich.console import Console

from llama_exp.architecture import EMBEDDING_MODES, LINEAR_NAMES, OPTIONS, Quantization, make_quantization
from llama_exp.commands import export, export_target
from llama_exp.commands.parser import Parser, group_size, size_in_gib
from llama_exp.commands.sources import find, load_tokenizer, opened
from llama_exp.config.quoting import plain_or_quoted
from llama_exp.console import logs
from llama_exp.errors import ConfigError, Problem
from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.quantization import describe

# Names and meaning of the files in conf/quantization, without float8: no preset can hold it.
QUANTIZATIONS: dict[str, dict[str, Any]] = {
    "none": {"mode": "none"},
    "int8": {"mode": "int8", "quantize_activations": True},
    "int8_weight_only": {"mode": "int8", "quantize_activations": False},
    "int4": {"mode": "int4"},
}


def main(arguments: list[str]) -> int:
    """Converts as the command line says; returns the exit code."""
    options = _parser().parse_args(arguments)
    logs.attach_console()
    place = export_target.target(options, options.max_shard_size)
    place = dataclasses.replace(place, quantization=_quantization(options))
    source = find(options.source, offline=options.offline, where="--from")
    if source.adapter is not None:
        command = f"llama-exp merge {shlex.quote(options.source)} --to <folder> --format {options.format}"
        what = "the run trained an adapter, which has to be merged into its model"
        raise ConfigError(Problem(what, "--from", options.source, command))
    export_target.require_free(place, source.path)
    with opened(source) as checkpoint:
        _require_floats(checkpoint, place)
        tokenizer = load_tokenizer(source)
        rows = export.write(checkpoint, tokenizer, place, Console(stderr=True), source)
        stored = place.quantization or (checkpoint.quantization if place.dtype is None else None)
    value = shlex.quote(plain_or_quoted(str(place.folder)))
    if stored is not None:
        rows["quantization"] = f"{describe(stored)}; training and every other command find it in the folder"
        train = f"llama-exp train preset.source={value} lora.rank=8"
        rows["to train"] = f"{train} model=<as for the source>"
    rows["next"] = export.next_command(place, tokenizer)
    export.show(rows, Console())
    return 0


def _quantization(options) -> Quantization | None:
    """What the options ask for; None: the weights stay as they are.

    Raises:
        ConfigError: they contradict each other, in one way or several.
    """
    name, problems = options.quantization, []
    choices = {key: getattr(options, key) for key, option in OPTIONS.items() if option.mode == "int4"}
    for key, value in choices.items():
        option = f"--{key.replace('_', '-')}"
        if value is not None and name != "int4":
            words = "" if value is True else f" {' '.join(value) if isinstance(value, list) else value}"
            found, action = f"{option}{words} with --quantization {name}", "give --quantization int4, or leave it out"
            problems.append(Problem("only int4 leaves this choice", option, found, action))
    if set(choices["int8_layers"] or ()) == set(LINEAR_NAMES):
        action = "give --quantization int8_weight_only, or fewer names"
        problems.append(Problem("leaves nothing to be int4", "--int8-layers", "all of the linear layers", action))
    if name != "none" and options.format != "keras_hub":
        what = "this format has floating-point weights only"
        action = "give --format keras_hub, or leave --quantization out"
        if options.format == "gguf":
            what, action = "this format has integers of its own", f"give --dtype Q8_0 in place of --quantization {name}"
        problems.append(Problem(what, "--format", f"{options.format} with --quantization {name}", action))
    if name != "none" and options.dtype is not None:
        what = "a floating-point type of the weights, which are to be integers"
        action = "leave one of the two out; norms keep the type they have"
        problems.append(Problem(what, "--dtype", f"{options.dtype} with --quantization {name}", action))
    if problems:
        raise ConfigError(*problems)
    return make_quantization(**QUANTIZATIONS[name], **choices)


def _require_floats(checkpoint: Checkpoint, place: export_target.Target) -> None:
    """Fails if weights that were rounded once would be rounded again."""
    if checkpoint.quantization is not None and place.quantization is not None:
        what = "the source is quantized already, and integers of integers would be further off"
        found = f"{describe(place.quantization)} of {describe(checkpoint.quantization)} in {checkpoint.path}"
        action = "leave --quantization out to keep what it has, or name the model it was made of with --from"
        raise ConfigError(Problem(what, "--quantization", found, action))


def _parser() -> Parser:
    parser = Parser(
        "convert",
        "Converts a model between formats without any framework: one tensor in memory at a time.\n"
        "Tokenizer, chat template and generation config go along. Every tensor is read back and\n"
        "compared with what was written before the folder appears under its name.\n"
        "With --quantization a model is rounded once, instead of at every start of train, chat or generate.",
        [
            "llama-exp convert --from hf://HuggingFaceTB/SmolLM2-135M-Instruct --to smollm2 --format keras_hub",
            "llama-exp convert --from llama3.2_1b --to llama3.2_1b_hf --format hf --dtype bfloat16",
            "llama-exp convert --from outputs/default/<run> --to model_gguf --format gguf --dtype Q8_0",
            "llama-exp convert --from model.Q8_0.gguf --to model_hf --format hf --dtype float16",
            "llama-exp convert --from model.gguf --to model_int4 --format keras_hub --quantization int4 --gptq",
        ],
    )
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="SRC",
        help="a built-in preset (llama-exp presets), kaggle://..., hf://..., a folder, a .gguf file, or a run's folder",
    )
    export_target.add_arguments(parser, format_required=True)
    _add_quantization(parser)
    parser.add_argument(
        "--max-shard-size",
        type=size_in_gib,
        metavar="GIB",
        help="split larger weights into files of about this size (default: 10; a GGUF file is one)",
    )
    parser.add_argument("--offline", action="store_true", help="ask no server: files or the cache must have it")
    return parser


def _add_quantization(parser: Parser) -> None:
    size, embeddings, layers = (OPTIONS[name].default for name in ("group_size", "embeddings", "int8_layers"))
    parser.add_argument(
        "--quantization",
        type=_stored_by_name,
        choices=QUANTIZATIONS,
        default="none",
        help="store the weights as integers, as train's quantization=... has them in memory (default: as they are)",
    )
    parser.add_argument(
        "--group-size",
        type=group_size,
        metavar="N",
        help=f"int4: inputs that share a scale; 0: all (default: {size})",
    )
    parser.add_argument(
        "--embeddings",
        choices=EMBEDDING_MODES,
        help=f"int4: type of the embeddings and the output matrix (default: {embeddings})",
    )
    parser.add_argument(
        "--int8-layers",
        nargs="*",
        choices=LINEAR_NAMES,
        metavar="NAME",
        help=f"int4: linear layers that are int8 instead (default: {' '.join(layers)}); without a name: none",
    )
    parser.add_argument(
        "--gptq",
        action="store_true",
        default=None,
        help="int4: errors of weights cancel in the products, after minutes of rounding with the model in memory",
    )


def _stored_by_name(name: str) -> str:
    """The name as it is, but for the one that other commands know and no file can have."""
    if name == "float8":
        what, action = "a KerasHub preset cannot hold float8 weights", "convert without it, and quantize at each start"
        command = "chat and generate --quantization float8, train with quantization=float8"
        raise ConfigError(Problem(what, "--quantization", name, f"{action}: {command}"))
    return name
