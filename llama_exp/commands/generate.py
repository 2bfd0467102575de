"""`llama-exp generate`: the continuation of a text."""

from __future__ import annotations

import sys

from llama_exp.commands import generation_options, models
from llama_exp.commands.parser import Parser
from llama_exp.commands.prompt_text import read_standard_input, require_text
from llama_exp.commands.streaming import TextStream
from llama_exp.console import logs

# Of a model that no run of ours says another of. The likeliest token each time makes a small model repeat itself.
TEMPERATURE = 0.5


def main(arguments: list[str]) -> int:
    """Generates as the command line says; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    prompt = _standard_input(parser) if options.prompt is None else require_text(options.prompt, "--prompt")
    logs.attach_console()
    model, source = models.load(options)
    models.require_tokenizer(model, source)
    tokenizer, tally = model.tokenizer, generation_options.Tally()
    encode = tokenizer.encode_with_special_tokens if options.special_tokens else tokenizer.encode
    token_ids = encode(prompt)
    if tokenizer.begin_id is not None and token_ids[:1] != [tokenizer.begin_id]:
        token_ids = [tokenizer.begin_id, *token_ids]
    if not token_ids:
        parser.error("the prompt is empty, and this tokenizer has no token to begin with")
    stream = TextStream(sys.stdout, tokenizer)
    stream.add(token_ids)
    temperature = TEMPERATURE if source.temperature is None else source.temperature
    generation_options.continue_text(model, token_ids, options, tally, stream.add, temperature)
    stream.finish()
    print(f"{tally}, compilation included", file=sys.stderr)
    return 0


def _standard_input(parser: Parser) -> str:
    if sys.stdin.isatty():
        parser.error('there is no prompt: give --prompt "..." or pipe a text in')
    return read_standard_input().removesuffix("\n")


def _parser() -> Parser:
    parser = Parser(
        "generate",
        "Continues a text, and prints it with its continuation on standard output, token by token.",
        [
            'llama-exp generate hf://HuggingFaceTB/SmolLM2-135M --prompt "The capital of France is"',
            'llama-exp generate outputs/default/<run> --prompt "def add(a, b):" --temperature 0.8 --top-p 0.95',
            "llama-exp generate model.Q4_K_M.gguf --max-new-tokens 50 < prompt.txt",
        ],
    )
    models.add_arguments(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="text to continue (default: standard input)")
    parser.add_argument(
        "--special-tokens",
        action="store_true",
        help="names such as <|eot_id|> in the text stand for these tokens (default: they are text like any other)",
    )
    generation_options.add_arguments(parser, f"of a run its trainer.sample_temperature, else {TEMPERATURE}")
    return parser
