"""`llama-exp convert`: a model from any format into KerasHub's or Hugging Face's."""

from __future__ import annotations

import shlex

from rich.console import Console

from llama_exp import formats, logs, preset
from llama_exp import tokenizer as tokenizers
from llama_exp.commands import export
from llama_exp.commands.arguments import Parser, size_in_gib
from llama_exp.tokenizer.assets import has_tokenizer


def main(arguments: list[str]) -> int:
    """Converts as the command line says; returns the exit code."""
    options = _parser().parse_args(arguments)
    logs.attach_console()
    place = export.target(options, options.max_shard_size)
    resolved = preset.resolve(options.source, offline=options.offline)
    export.require_free(place, resolved.path)
    with formats.open_checkpoint(resolved.path) as checkpoint:
        tokenizer = tokenizers.load(resolved.path) if has_tokenizer(resolved.path) else None
        rows = export.write(checkpoint, tokenizer, place, Console(stderr=True))
    command = "chat" if tokenizer is not None and tokenizer.chat_template is not None else "generate"
    rows["next"] = f"llama-exp {command} {shlex.quote(str(place.folder))}"
    export.show(rows, Console())
    return 0


def _parser() -> Parser:
    parser = Parser(
        "convert",
        "Converts a model between formats without any framework: one tensor in memory at a time.\n"
        "Tokenizer, chat template and generation config go along. Every tensor is read back and\n"
        "compared with what was written before the folder appears under its name.",
        [
            "llama-exp convert --from hf://HuggingFaceTB/SmolLM2-135M-Instruct --to smollm2 --format keras_hub",
            "llama-exp convert --from llama3.2_1b --to llama3.2_1b_hf --format hf --dtype bfloat16",
            "llama-exp convert --from model.Q8_0.gguf --to model_hf --format hf --dtype float16",
        ],
    )
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="SRC",
        help="a built-in preset (llama-exp presets), kaggle://..., hf://..., a folder, or a .gguf file",
    )
    export.add_arguments(parser, format_required=True)
    parser.add_argument(
        "--max-shard-size",
        type=size_in_gib,
        default=10.0,
        metavar="GIB",
        help="split larger weights into files of about this size (default: 10)",
    )
    parser.add_argument("--offline", action="store_true", help="ask no server: files or the cache must have it")
    return parser
